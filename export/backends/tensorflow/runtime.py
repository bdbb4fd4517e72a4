"""A SavedModel in TensorFlow, called through its signatures as a server would."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.format import Runtime, Tensor
from export.core.generate import INTERFACE, Generator
from export.core.samples import in_batches
from zoo.common.errors import BadOption, UnsupportedExport
from zoo.common.lazy import np, tf

if TYPE_CHECKING:
    import numpy as _np


class Signatures:
    """The signatures of a SavedModel.

    Args:
        path: the version folder.
        threads: threads within an operator, TensorFlow's choice by default.

    Attributes:
        metadata: what was written into the folder, None if nothing was.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            set_threads(threads)
        self._loaded = tf.saved_model.load(str(path))  # kept: its signatures do not keep it alive
        extra = Path(path) / "assets.extra" / "zoo.json"
        self.metadata = json.loads(extra.read_text(encoding="utf-8")) if extra.exists() else None

    def tensors(self, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return inputs and outputs of a signature."""
        signature = self._loaded.signatures[name]
        given, out = signature.structured_input_signature[1], signature.structured_outputs
        return tuple(map(_tensor, given.values())), tuple(_tensor(spec, key) for key, spec in out.items())

    def call(self, name: str, values: dict[str, Any]) -> dict[str, _np.ndarray]:
        """Call a signature; returns its outputs by name."""
        found = self._loaded.signatures[name](**{key: tf.constant(value) for key, value in values.items()})
        return {key: value.numpy() for key, value in found.items()}

    def in_batches(self, name: str, given: str, values: Any, output: str) -> _np.ndarray:
        """Return one output of a signature with one input, called on a few values at a time."""
        return in_batches(lambda few: self.call(name, {given: few})[output], values, None)

    def require(self, name: str, kind: str) -> None:
        """Raise UnsupportedExport if there is no signature of this name, which only models of a kind have."""
        if name not in self._loaded.signatures:
            raise UnsupportedExport(
                f"Only a model of {kind} has the signature {name}. "
                f"Received: signatures={sorted(self._loaded.signatures)}. Call it with raw values."
            )


class SavedModelRuntime(Runtime):
    """A SavedModel that gives logits.

    Args:
        path: the version folder.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    library = "tensorflow"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._signatures = Signatures(path, threads)
        self.inputs, self.outputs = self._signatures.tensors("serving_default")
        self.batch, self.metadata = self.inputs[0].shape[0], self._signatures.metadata

    def __call__(self, inputs: _np.ndarray) -> _np.ndarray:
        """Return float32 logits of raw values (n, *shape) or ids."""
        given = self.inputs[0]
        return self._signatures.in_batches(
            "serving_default", given.name, np.asarray(inputs, given.dtype), self.outputs[0].name
        )

    def step(self, inputs: _np.ndarray) -> None:
        """Run once on raw values (n, *shape) of the right dtype."""
        self._signatures.call("serving_default", {self.inputs[0].name: inputs})

    def classify_bytes(self, encoded: list[bytes]) -> _np.ndarray:
        """Return float32 logits (n, classes) of encoded images (JPEG, PNG, …) of any size.

        Raises:
            UnsupportedExport: the model does not take images.
        """
        self._signatures.require("serve_bytes", "images")
        return self._signatures.in_batches("serve_bytes", "image_bytes", encoded, self.outputs[0].name)

    def features(self, inputs: _np.ndarray) -> _np.ndarray:
        """Return float32 features (n, channels), what the last dense layer takes, of raw values (n, *shape) or ids.

        Raises:
            UnsupportedExport: the network has no dense layer at its end, or nothing but that one.
        """
        self._signatures.require("features", "more than its last dense layer")
        given = self.inputs[0]
        return self._signatures.in_batches("features", given.name, np.asarray(inputs, given.dtype), "features")

    def classify_strings(self, texts: list[str]) -> _np.ndarray:
        """Return float32 logits of texts.

        Raises:
            UnsupportedExport: the model does not take text, or its vocabulary is not known.
        """
        self._signatures.require("serve_text", "texts")
        return self._signatures.in_batches("serve_text", "text", texts, self.outputs[0].name)


class SavedModelWriter(Generator):
    """A SavedModel that writes sequences.

    Args:
        path: the version folder.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    library = "tensorflow"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._signatures = Signatures(path, threads)
        self.parts = {part: self._signatures.tensors(part) for part in INTERFACE}
        self.batch, self.metadata = self.inputs[0].shape[0], self._signatures.metadata

    def run(self, part: str, values: dict[str, _np.ndarray]) -> dict[str, _np.ndarray]:
        """Run a part; returns float32 values of its outputs."""
        return self._signatures.call(part, values)

    def generate(self, source: _np.ndarray) -> _np.ndarray:
        """Return tokens int32 (n, T) of sources int32 (n, S), by the loop inside the artifact."""
        return self._signatures.in_batches("serving_default", "source", np.asarray(source, "int32"), "tokens")

    def generate_strings(self, texts: list[str]) -> list[str]:
        """Return what is written for texts.

        Raises:
            UnsupportedExport: the vocabulary is not known.
        """
        self._signatures.require("generate_text", "texts")
        found = self._signatures.in_batches("generate_text", "text", texts, "text")
        return [text.decode("utf-8", "replace") for text in found]


def set_threads(threads: int) -> None:
    """Set the threads within an operator, which TensorFlow allows for the whole process and before its first use."""
    threading = tf.config.threading
    running = threading.get_intra_op_parallelism_threads() or os.cpu_count()
    if threads == running:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise BadOption(
            f"TensorFlow is already running with {running} threads and cannot change that. "
            f"Received: threads={threads}. Load a saved_model before anything else uses TensorFlow."
        ) from error


def _tensor(spec: Any, name: str | None = None) -> Tensor:
    """Return a signature's input or output."""
    return Tensor(name or spec.name, tuple(spec.shape), spec.dtype.name)
