"""A .keras file: written with facts beside its version, read in Keras' safe mode, run by TensorFlow."""

from __future__ import annotations

import importlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.tensorflow.runtime import set_threads
from export.core.format import Runtime, Tensor
from export.core.generate import Generator
from export.core.samples import in_batches
from export.source.source import RENAMED, Part
from zoo.common.errors import RunError
from zoo.common.lazy import keras, np, tf
from zoo.decoding import split

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

FACTS, CONFIG = "metadata.json", "config.json"  # within the file; Keras states its version in the first
# Layers that Keras does not have are known to it once these are imported.
OWN = ("zoo.layers.core", "zoo.layers.sequence")
PACKAGE = "zoo>"  # begins the names under which Keras knows what is ours


def write_file(model: _keras.Model, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a model and what is known of it, under "zoo" in the file's own metadata.

    Args:
        model: in float32.
        path: ends with .keras.
        facts: JSON-safe.
    """
    plain = path.with_name(f"plain-{path.name}")
    model.save(plain)
    with zipfile.ZipFile(plain) as given, zipfile.ZipFile(path, "w") as made:
        for entry in given.infolist():
            if entry.filename == FACTS:
                made.writestr(FACTS, json.dumps({**json.loads(given.read(FACTS)), "zoo": dict(facts)}))
                continue
            with given.open(entry) as old, made.open(entry.filename, "w", force_zip64=True) as new:
                shutil.copyfileobj(old, new, 1 << 20)
    plain.unlink()


def needs_of(path: Path) -> tuple[str, ...]:
    """Return the modules that have to be imported before Keras can read a file, none where all layers are its own."""
    return tuple(
        sorted({found for found in _modules(_read(path, CONFIG)) if found.partition(".")[0] != keras.__name__})
    )


def _modules(config: Any) -> Iterator[str]:
    """Yield the modules of the classes and functions that a configuration names."""
    if isinstance(config, dict):
        if config.get("class_name") == "function":
            # A function is known by the package that it was registered for.
            yield OWN[0] if str(config.get("config")).startswith(PACKAGE) else keras.__name__
        elif isinstance(config.get("module"), str) and "class_name" in config:
            yield config["module"]
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _modules(value)


def facts_in(path: Path) -> dict[str, Any] | None:
    """Return what was written into a file, None if nothing was."""
    return _read(path, FACTS).get("zoo")


def _read(path: Path, name: str) -> Any:
    try:
        with zipfile.ZipFile(path) as file:
            return json.loads(file.read(name))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def load_file(path: Path) -> _keras.Model:
    """Return the model in a file; code that a file brings with it does not run.

    Raises:
        RunError: the file cannot be read, or needs layers that are not known.
    """
    for module in OWN:
        importlib.import_module(module)
    try:
        return keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except (OSError, TypeError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    reason = " ".join(str(error).split())[:200]
    return RunError(f"Expected a .keras file that Keras reads in its safe mode. Received: {path}: {reason}")


class KerasRuntime(Runtime):
    """A .keras file that gives logits.

    Args:
        path: the file.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    library = "keras"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            set_threads(threads)
        self.metadata, self.needs, self.batch = facts_in(path), needs_of(path), None
        model = load_file(path)
        (given,) = model.inputs
        self.inputs = (Tensor(given.name, tuple(given.shape), given.dtype),)
        # The only output of a Keras model has no name of its own.
        output = (self.metadata or {}).get("output", model.output_names[0])
        self.outputs = (Tensor(output, tuple(model.output_shape), model.compute_dtype),)
        spec = tf.TensorSpec(given.shape, given.dtype)
        self._function = tf.function(lambda x: model(x, training=False), autograph=False, input_signature=[spec])

    def __call__(self, inputs: _np.ndarray) -> _np.ndarray:
        """Return float32 logits of raw values (n, *shape) or ids."""
        values = np.asarray(inputs, self.inputs[0].dtype)
        return in_batches(lambda few: self._function(few).numpy(), values, self.batch)

    def step(self, inputs: _np.ndarray) -> None:
        """Run once on raw values (n, *shape) of the right dtype."""
        self._function(inputs).numpy()


class KerasWriter(Generator):
    """A .keras file of a network that writes sequences, taken apart into encoder and decoder step.

    Args:
        path: the file.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    library = "keras"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            set_threads(threads)
        self.metadata, self.needs, self.batch = facts_in(path), needs_of(path), None
        taken = split(load_file(path))
        parts = Part("encode", taken.encoder, ("memory",)), Part("decode", taken.decoder, ("logits", "next_cache"))
        self.parts = {part.name: _interface(part) for part in parts}
        self._functions = {part.name: _function(part) for part in parts}

    def run(self, part: str, values: dict[str, _np.ndarray]) -> dict[str, _np.ndarray]:
        """Run a part; returns float32 values of its outputs."""
        found = self._functions[part](**{name: tf.constant(value) for name, value in values.items()})
        return {name: value.numpy() for name, value in found.items()}


def _interface(part: Part) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs and outputs of a part."""
    given = tuple(Tensor(name, (None, *shape), dtype) for name, (shape, dtype) in part.inputs.items())
    out = part.model.output.items()
    return given, tuple(Tensor(RENAMED.get(name, name), tuple(value.shape), value.dtype) for name, value in out)


def _function(part: Part) -> Any:
    """Return a part as TensorFlow runs it, for any number of examples."""
    specs = {name: tf.TensorSpec((None, *shape), dtype, name) for name, (shape, dtype) in part.inputs.items()}
    return tf.function(part, autograph=False).get_concrete_function(**specs)
