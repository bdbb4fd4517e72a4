"""ONNX files in ONNX Runtime on the processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._format import Runtime, Tensor
from export._generate import INTERFACE, Writer
from export._onnx_external import read
from export._samples import in_batches
from zoo._errors import RunError
from zoo._lazy import LazyModule, np

if TYPE_CHECKING:
    import numpy as _np

ort = LazyModule("onnxruntime")

BATCH = 32  # examples a call, so that memory stays bounded however many are asked for
DTYPES = {"float": "float32"}
# The file of each part of a network that writes sequences.
FILES = {"encode": "encoder.onnx", "decode": "decoder.onnx"}


def options(threads: int | None) -> Any:
    """Return quiet session options."""
    made = ort.SessionOptions()
    made.log_severity_level = 3
    if threads:
        made.intra_op_num_threads = threads
    return made


class Session:
    """One file.

    Args:
        path: the file.
        threads: threads within an operator, ONNX Runtime's choice by default.

    Attributes:
        inputs: its inputs.
        outputs: its outputs.
        metadata: what was written into the file, None if nothing was.

    Raises:
        RunError: the file cannot be read, or names data outside its own folder.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        read(path)
        try:
            self._session = ort.InferenceSession(str(path), options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime has an exception class for each of its own codes.
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"Expected a file that ONNX Runtime runs. Received: {path}: {reason}") from error
        self.inputs = tuple(map(_tensor, self._session.get_inputs()))
        self.outputs = tuple(map(_tensor, self._session.get_outputs()))
        written = self._session.get_modelmeta().custom_metadata_map.get("zoo")
        self.metadata = None if written is None else json.loads(written)

    def run(self, values: dict[str, _np.ndarray]) -> list[_np.ndarray]:
        """Return all outputs."""
        return self._session.run(None, values)


class OnnxRuntime(Runtime):
    """An ONNX file that gives logits.

    Args:
        path: the file.
        threads: threads within an operator, ONNX Runtime's choice by default.
    """

    library = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._session = Session(path, threads)
        self.inputs, self.outputs = self._session.inputs, self._session.outputs
        self.batch, self.metadata = self.inputs[0].shape[0], self._session.metadata

    def __call__(self, inputs: _np.ndarray) -> _np.ndarray:
        """Return float32 logits of raw values (n, *shape) or ids."""
        given = self.inputs[0]
        values = np.asarray(inputs, given.dtype)

        def run(batch: _np.ndarray) -> _np.ndarray:
            return self._session.run({given.name: batch})[0]

        if self.batch:
            return in_batches(run, values, self.batch)
        return np.concatenate([run(values[first : first + BATCH]) for first in range(0, len(values), BATCH)])

    def step(self, inputs: _np.ndarray) -> None:
        """Run once on raw values (n, *shape) of the right dtype."""
        self._session.run({self.inputs[0].name: inputs})


class OnnxWriter(Writer):
    """A folder with encoder.onnx and decoder.onnx.

    Args:
        path: the folder.
        threads: threads within an operator, ONNX Runtime's choice by default.
    """

    library = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._sessions = {part: Session(path / FILES[part], threads) for part in INTERFACE}
        self.parts = {part: (session.inputs, session.outputs) for part, session in self._sessions.items()}
        self.batch, self.metadata = self.inputs[0].shape[0], self._sessions["encode"].metadata

    def run(self, part: str, values: dict[str, _np.ndarray]) -> dict[str, _np.ndarray]:
        """Run a part; returns float32 values of its outputs."""
        session = self._sessions[part]
        return dict(zip((tensor.name for tensor in session.outputs), session.run(values), strict=True))


def _tensor(described: Any) -> Tensor:
    """Return what ONNX Runtime says about an input or output; named sizes are free."""
    shape = tuple(size if isinstance(size, int) else None for size in described.shape)
    dtype = described.type.removeprefix("tensor(").removesuffix(")")
    return Tensor(described.name, shape, DTYPES.get(dtype, dtype))
