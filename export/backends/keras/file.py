"""A .keras file: written with metadata, read in Keras' safe mode, run by TensorFlow."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.tensorflow.runtime import set_threads
from export.core.generate import Generator
from export.core.runtime import Runtime, Tensor, cast_inputs, in_order, inputs_in_order, one_or_named
from export.core.samples import in_batches
from export.source.source import OUTPUT_NAMES, Part
from zoo.common.lazy import keras, tf
from zoo.decoding import split_model
from zoo.reading.files import Refusal, reading
from zoo.reading.json_files import parse_json
from zoo.reading.keras_models import CONFIG, METADATA, open_archive, open_model

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

REFUSAL = Refusal("Expected a .keras file that Keras reads in its safe mode")
PACKAGE = "zoo"  # Keras registers the zoo's classes and functions as "zoo>NAME"


def write_file(model: _keras.Model, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a model with metadata, under "zoo" in the file's metadata.json.

    Args:
        model: in float32.
        path: ends with .keras.
        metadata: JSON-safe.
    """
    plain = path.with_name(f"plain-{path.name}")
    model.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            if entry.filename == METADATA:
                target.writestr(METADATA, json.dumps({**json.loads(source.read(METADATA)), "zoo": dict(metadata)}))
                continue
            with source.open(entry) as old, target.open(entry.filename, "w", force_zip64=True) as new:
                shutil.copyfileobj(old, new, 1 << 20)
    plain.unlink()


def required_modules(path: Path) -> tuple[str, ...]:
    """Return the packages to import before Keras can read a file; none if all its layers are Keras' own."""
    packages = {module.partition(".")[0] for module in _modules(_read(path, CONFIG))}
    return tuple(sorted(packages - {keras.__name__}))


def _modules(config: Any) -> Iterator[str]:
    """Yield the modules of the classes and functions in a configuration."""
    if isinstance(config, dict):
        if config.get("class_name") == "function":
            # The config of a function has its registered name only.
            yield PACKAGE if str(config.get("config")).startswith(f"{PACKAGE}>") else keras.__name__
        elif isinstance(config.get("module"), str) and "class_name" in config:
            yield config["module"]
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _modules(value)


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return the metadata in a file, None if there is none."""
    return _read(path, METADATA).get("zoo")  # next to Keras' own entries


def _read(path: Path, name: str) -> Any:
    with reading(path, REFUSAL), open_archive(path, whole=False) as archive:
        return parse_json(archive.read(name), dict)


def load_file(path: Path) -> _keras.Model:
    """Return the model in a file; code inside the file does not run.

    Raises:
        RunError: the file cannot be read, or has unknown layers.
    """
    return open_model(path, REFUSAL)


class KerasRuntime(Runtime):
    """A .keras file with one function.

    Args:
        path: the file.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    library = "keras"
    shares_threads = True

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            set_threads(threads)
        self.metadata, self.required_modules, self.batch = read_metadata(path), required_modules(path), None
        model = load_file(path)
        # Keras does not store the name of a single output.
        output = (self.metadata or {}).get("output", model.output_names[0])
        part = Part("serving_default", model, tuple(model.output) if isinstance(model.output, dict) else (output,))
        inputs, outputs = _interface(part)
        self.inputs, self.outputs = inputs_in_order(inputs, self.metadata), in_order(outputs, self.metadata)
        self._function = _function(part)

    def __call__(self, inputs: Any) -> Any:
        """Return float32 logits of raw values (n, *shape) or ids; by name if there are several outputs."""
        return in_batches(self._run, cast_inputs(self.inputs, inputs), self.batch)

    def _run(self, batch: dict[str, _np.ndarray]) -> Any:
        found = self._function(**{name: tf.constant(values) for name, values in batch.items()})
        return one_or_named(self.outputs, {name: value.numpy() for name, value in found.items()})

    def step(self, inputs: Any) -> None:
        """Run once on raw values (n, *shape) of the right dtype."""
        self._run(inputs if isinstance(inputs, dict) else {self.inputs[0].name: inputs})


class KerasGenerator(Generator):
    """A .keras file of a sequence-to-sequence model, split into encoder and decoder step.

    Args:
        path: the file.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    library = "keras"
    shares_threads = True

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            set_threads(threads)
        self.metadata, self.required_modules, self.batch = read_metadata(path), required_modules(path), None
        taken = split_model(load_file(path))
        parts = Part("encode", taken.encoder, ("memory",)), Part("decode", taken.decoder, ("logits", "next_cache"))
        self.parts = {part.name: _interface(part) for part in parts}
        self._functions = {part.name: _function(part) for part in parts}

    def run(self, part: str, values: dict[str, _np.ndarray]) -> dict[str, _np.ndarray]:
        """Run a part; returns float32 values of its outputs."""
        outputs = self._functions[part](**{name: tf.constant(value) for name, value in values.items()})
        return {name: value.numpy() for name, value in outputs.items()}


def _interface(part: Part) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs and outputs of a part."""
    inputs = tuple(Tensor(name, (None, *shape), dtype) for name, (shape, dtype) in part.inputs.items())
    found = part.model.output
    outputs = found.items() if isinstance(found, dict) else [(part.outputs[0], found)]
    return inputs, tuple(Tensor(OUTPUT_NAMES.get(name, name), tuple(x.shape), x.dtype) for name, x in outputs)


def _function(part: Part) -> Any:
    """Return a part as a TensorFlow function with a dynamic batch."""
    specs = {name: tf.TensorSpec((None, *shape), dtype, name) for name, (shape, dtype) in part.inputs.items()}
    return tf.function(part, autograph=False).get_concrete_function(**specs)
