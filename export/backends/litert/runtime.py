"""LiteRT files on the CPU, with LiteRT's default XNNPACK delegate."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.compat import schema
from export.core.generate import INTERFACE, Generator
from export.core.runtime import Runtime, Tensor, by_input, in_order, inputs_in_order, one_or_named
from export.core.samples import in_batches
from zoo.common.errors import RunError, UnsupportedExport
from zoo.common.lazy import LazyModule, np, quiet_libraries
from zoo.reading.json_files import parse_json

if TYPE_CHECKING:
    import numpy as _np

interpreter = LazyModule("ai_edge_litert.interpreter", "ai-edge-litert")

SIGNATURE = "serving_default"
METADATA, FLEX = b"zoo", "Flex"
CUSTOM = 32  # number of BuiltinOperator.CUSTOM in the schema


class LiteRtRuntime(Runtime):
    """A .tflite file with one signature.

    Args:
        path: the file.
        threads: threads to use, LiteRT's choice by default.
    """

    library = "ai_edge_litert.interpreter"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._interpreter = _open(path, threads)
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        self._taken, self._found = runner.get_input_details(), runner.get_output_details()
        self.metadata = read_metadata(path)
        self.inputs = inputs_in_order(_tensors(self._taken), self.metadata)
        self.outputs = in_order(_tensors(self._found), self.metadata)
        self.batch = self.inputs[0].shape[0]
        self._last_inputs: Any = None

    def __call__(self, inputs: Any) -> Any:
        """Return float32 logits of raw values (n, *shape) or ids, batch by batch; by name if there are several."""
        return in_batches(self._logits, by_input(self.inputs, inputs), self.batch)

    def step(self, inputs: Any) -> None:
        """Run once on raw values (batch, *shape); the same array as before is not converted again."""
        if inputs is not self._last_inputs:
            self._set(by_input(self.inputs, inputs))
            self._last_inputs = inputs
        self._interpreter.invoke()

    def _set(self, inputs: dict[str, _np.ndarray]) -> None:
        for tensor in self.inputs:
            self._interpreter.set_tensor(self._taken[tensor.name]["index"], _quantize(inputs[tensor.name], tensor))

    def _logits(self, inputs: dict[str, _np.ndarray]) -> Any:
        """Return the outputs of one batch."""
        self._last_inputs = None
        self._set(inputs)
        self._interpreter.invoke()
        stored = {tensor: self._interpreter.get_tensor(self._found[tensor.name]["index"]) for tensor in self.outputs}
        return one_or_named(self.outputs, {tensor.name: _dequantize(v, tensor) for tensor, v in stored.items()})


class LiteRtGenerator(Generator):
    """A .tflite file of a sequence-to-sequence model, with the signatures `encode` and `decode`.

    Args:
        path: the file.
        threads: threads to use, LiteRT's choice by default.
    """

    library = "ai_edge_litert.interpreter"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._interpreter = _open(path, threads)
        self._runners = {part: self._interpreter.get_signature_runner(part) for part in INTERFACE}
        self.parts = {
            part: (_tensors(runner.get_input_details()), _tensors(runner.get_output_details()))
            for part, runner in self._runners.items()
        }
        self.batch, self.metadata = self.inputs[0].shape[0], read_metadata(path)

    def run(self, part: str, values: dict[str, _np.ndarray]) -> dict[str, _np.ndarray]:
        """Run a part on one batch of sequences; returns float32 values of its outputs."""
        inputs, outputs = self.parts[part]
        found = self._runners[part](**{tensor.name: _quantize(values[tensor.name], tensor) for tensor in inputs})
        return {tensor.name: _dequantize(found[tensor.name], tensor) for tensor in outputs}


def _open(path: Path, threads: int | None) -> Any:
    """Return an interpreter with allocated tensors; see `check_operators`."""
    check_operators(path)
    with quiet_libraries():
        opened = interpreter.Interpreter(model_path=str(path), num_threads=threads)
        opened.allocate_tensors()
    return opened


def check_operators(path: Path) -> None:
    """Raise UnsupportedExport for a file with Flex operators, and RunError for one with other custom operators."""
    custom = custom_operators(path)
    unsupported = [name for name in custom if name.startswith(FLEX)]
    if unsupported:
        raise UnsupportedExport(
            "Plain LiteRT lacks TensorFlow operators (Flex) and cannot run this file. "
            f"Received: {path.name} with {', '.join(unsupported)}. Write the layer with operators that LiteRT has."
        )
    if custom:
        raise RunError(
            f"A .tflite file must use LiteRT's own operators. Received: {path} with the custom operator "
            f"{custom[0][:100]}. It was not loaded: such an operator runs code from elsewhere. Get the model from a "
            "source that you trust."
        )


def custom_operators(path: Path) -> list[str]:
    """Return the custom operators of a file, Flex ones included, without reading the rest of it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        model = schema.Model.GetRootAs(content, 0)
        custom = [
            code for code in map(model.OperatorCodes, range(model.OperatorCodesLength())) if _kind(code) == CUSTOM
        ]
        return sorted({(code.CustomCode() or b"").decode("utf-8", "replace") for code in custom})


def _kind(code: Any) -> int:
    """Return the number of an operator, in the new field or in the one of old files."""
    return max(code.BuiltinCode(), code.DeprecatedBuiltinCode())


def _tensors(details: dict[str, dict[str, Any]]) -> tuple[Tensor, ...]:
    """Return the inputs or outputs of a signature."""
    return tuple(_tensor(detail, name) for name, detail in details.items())


def _tensor(detail: dict[str, Any], name: str) -> Tensor:
    """Return an input or output."""
    scale, zero_point = detail["quantization"]
    dtype, shape = np.dtype(detail["dtype"]).name, tuple(int(size) for size in detail["shape"])
    return Tensor(name, shape, dtype, *((float(scale), int(zero_point)) if scale else ()))


def _quantize(values: _np.ndarray, tensor: Tensor) -> _np.ndarray:
    """Return values quantized for a tensor: v / scale + zero point, rounded and clipped."""
    if tensor.scale is None and tensor.dtype != "uint8":
        return np.asarray(values, tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    stored = np.rint(np.asarray(values, np.float32) / (tensor.scale or 1.0)) + (tensor.zero_point or 0)
    return np.clip(stored, limits.min, limits.max).astype(tensor.dtype)


def _dequantize(stored: _np.ndarray, tensor: Tensor) -> _np.ndarray:
    """Return float32 values of a quantized tensor: (v - zero point) * scale."""
    if tensor.scale is None:
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return the metadata in a file without reading the rest of it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        model = schema.Model.GetRootAs(content, 0)
        entries = (model.Metadata(i) for i in range(model.MetadataLength()))
        buffers = [entry.Buffer() for entry in entries if entry.Name() == METADATA]
        if not buffers:
            return None
        return parse_json(model.Buffers(buffers[0]).DataAsNumpy().tobytes(), dict)
