"""A SavedModel in TensorFlow, called through its signatures as a server does."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.tensorflow.rows import row_inputs
from export.backends.tensorflow.safety import check_operators
from export.core.generate import INTERFACE, Generator
from export.core.runtime import Runtime, Tensor, cast_inputs, in_order, inputs_in_order
from export.core.samples import in_batches
from training.data.columns.schema import ColumnSchema, require_columns
from zoo.common.errors import BadOption, DataError, UnsupportedExport
from zoo.common.lazy import np, tf
from zoo.reading.json_files import read_json

if TYPE_CHECKING:
    import numpy as _np


class Signatures:
    """The signatures of a SavedModel.

    Args:
        path: the version folder.
        threads: threads within an operator, TensorFlow's choice by default.

    Attributes:
        metadata: the metadata in the folder, None if there is none.

    Raises:
        RunError: it has an operator that does more than compute; nothing was loaded.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            set_threads(threads)
        check_operators(Path(path))
        self._loaded = tf.saved_model.load(str(path))  # signatures alone do not keep it alive
        extra = Path(path) / "assets.extra" / "zoo.json"
        self.metadata = read_json(extra, dict) if extra.exists() else None

    def tensors(self, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return inputs and outputs of a signature."""
        signature = self._loaded.signatures[name]
        inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
        return tuple(map(_tensor, inputs.values())), tuple(_tensor(spec, key) for key, spec in outputs.items())

    def call(self, name: str, values: dict[str, Any]) -> dict[str, _np.ndarray]:
        """Call a signature; returns its outputs by name."""
        outputs = self._loaded.signatures[name](**{key: tf.constant(value) for key, value in values.items()})
        return {key: value.numpy() for key, value in outputs.items()}

    def in_batches(self, name: str, values: Any, outputs: Sequence[str]) -> Any:
        """Return an output of a signature, or several by name, for a few examples at a time.

        Args:
            name: the signature.
            values: its inputs by name.
            outputs: the names of the outputs.
        """

        def called(batch: Any) -> Any:
            found = self.call(name, batch)
            return found[outputs[0]] if len(outputs) == 1 else {output: found[output] for output in outputs}

        return in_batches(called, values, None)

    def require(self, name: str, kind: str) -> None:
        """Raise UnsupportedExport if there is no signature `name`, which only models of `kind` have."""
        if name not in self._loaded.signatures:
            raise UnsupportedExport(
                f"Only a model of {kind} has the signature {name}. "
                f"Received: signatures={sorted(self._loaded.signatures)}. Call it with raw values."
            )


class SavedModelRuntime(Runtime):
    """A SavedModel with one function.

    Args:
        path: the version folder.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    library = "tensorflow"
    shares_threads = True

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._signatures = Signatures(path, threads)
        inputs, outputs = self._signatures.tensors("serving_default")
        self.metadata = self._signatures.metadata
        self.inputs, self.outputs = inputs_in_order(inputs, self.metadata), in_order(outputs, self.metadata)
        self.batch = self.inputs[0].shape[0]

    def __call__(self, inputs: Any) -> Any:
        """Return float32 logits of raw values (n, *shape) or ids; by name if there are several outputs."""
        return self._signatures.in_batches("serving_default", cast_inputs(self.inputs, inputs), self._names)

    @property
    def _names(self) -> list[str]:
        return [tensor.name for tensor in self.outputs]

    def step(self, inputs: Any) -> None:
        """Run once on raw values (n, *shape) of the right dtype."""
        self._signatures.call("serving_default", inputs if isinstance(inputs, dict) else {self.inputs[0].name: inputs})

    def classify_bytes(self, encoded: list[bytes]) -> Any:
        """Return float32 logits (n, classes) of encoded images (JPEG, PNG, …) of any size, or several outputs by name.

        Raises:
            UnsupportedExport: the model takes no images.
        """
        self._signatures.require("serve_bytes", "images")
        return self._signatures.in_batches("serve_bytes", {"image_bytes": encoded}, self._names)

    def features(self, inputs: _np.ndarray) -> _np.ndarray:
        """Return float32 features (n, channels), the input of the last dense layer, of raw values (n, *shape) or ids.

        Raises:
            UnsupportedExport: the model has no dense layer at its end, or no other layer.
        """
        self._signatures.require("features", "more than its last dense layer")
        return self._signatures.in_batches("features", cast_inputs(self.inputs, inputs), ["features"])

    def classify_strings(self, texts: list[str]) -> Any:
        """Return float32 logits of texts, or several outputs by name.

        Raises:
            UnsupportedExport: the model takes no text, or its vocabulary is unknown.
        """
        self._signatures.require("serve_text", "texts")
        return self._signatures.in_batches("serve_text", {"text": texts}, self._names)

    def classify_rows(self, rows: Sequence[Mapping[str, str]]) -> Any:
        """Return float32 logits of rows of a table, or several outputs by name.

        Args:
            rows: the texts of the cells by column, as they are in a file; other columns are ignored.

        Raises:
            UnsupportedExport: the model takes no table.
            DataError: a column is missing, or a text does not fit its column.
        """
        self._signatures.require("serve_rows", "a table")
        inputs = row_inputs(ColumnSchema.from_json(self.metadata["tabular"]))
        for number, row in enumerate(rows, start=1):
            require_columns(tuple(inputs.values()), row, number)
        cells = {name: np.array([row[column].encode() for row in rows]) for name, column in inputs.items()}
        called = functools.partial(self._signatures.call, "serve_rows")
        try:
            found = in_batches(called, cells, None)
        except tf.errors.InvalidArgumentError as error:
            raise DataError(_sentence(error)) from error
        return found[self._names[0]] if len(self._names) == 1 else {name: found[name] for name in self._names}


def _sentence(error: Any) -> str:
    """Return the message of an assertion of `export.backends.tensorflow.rows` with its first cell."""
    text = str(error).replace("\\'", "'")
    found = re.search(
        r"(Expected (?:numbers|dates) in the column .*? Received:)\] \[(.*?)(?:\.\.\.)?\]\s", text, re.DOTALL
    )
    return f"{found[1]} {found[2]!r}" if found else " ".join(text.split())


class SavedModelGenerator(Generator):
    """A SavedModel of a sequence-to-sequence model.

    Args:
        path: the version folder.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    library = "tensorflow"
    shares_threads = True

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._signatures = Signatures(path, threads)
        self.parts = {part: self._signatures.tensors(part) for part in INTERFACE}
        self.batch, self.metadata = self.inputs[0].shape[0], self._signatures.metadata

    def run(self, part: str, values: dict[str, _np.ndarray]) -> dict[str, _np.ndarray]:
        """Run a part; returns float32 values of its outputs."""
        return self._signatures.call(part, values)

    def generate(self, source: _np.ndarray) -> _np.ndarray:
        """Return tokens int32 (n, T) of sources int32 (n, S), by the artifact's own decoding loop."""
        return self._signatures.in_batches("serving_default", {"source": np.asarray(source, "int32")}, ["tokens"])

    def generate_strings(self, texts: list[str]) -> list[str]:
        """Return the generated texts.

        Raises:
            UnsupportedExport: the vocabulary is unknown.
        """
        self._signatures.require("generate_text", "texts")
        generated = self._signatures.in_batches("generate_text", {"text": texts}, ["text"])
        return [text.decode("utf-8", "replace") for text in generated]


def set_threads(threads: int) -> None:
    """Set the threads within an operator; TensorFlow allows that once per process, before its first use."""
    threading = tf.config.threading
    running = threading.get_intra_op_parallelism_threads() or os.cpu_count()
    if threads == running:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise BadOption(
            f"TensorFlow already runs with {running} threads and cannot change that. "
            f"Received: threads={threads}. Load a saved_model before anything else uses TensorFlow."
        ) from error


def _tensor(spec: Any, name: str | None = None) -> Tensor:
    """Return a signature's input or output."""
    return Tensor(name or spec.name, tuple(spec.shape), spec.dtype.name)
