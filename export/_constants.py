"""The weights that are stored in an artifact, read from its file, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export import _litert_file
from export._bench import load_network
from zoo._lazy import LazyModule, np, tf

if TYPE_CHECKING:
    import numpy as _np

onnx = LazyModule("onnx")
KINDS = {0: "float32", 1: "float16", 9: "int8"}  # of tensors in a .tflite


def constants(path: Path) -> list[_np.ndarray] | None:
    """Return the stored arrays of rank 2 to 4 in Keras' layout: inputs before outputs, both last.

    A matrix may be stored either way round; it is given both ways.

    Args:
        path: the artifact; a file, or the folder of several or of a SavedModel.

    Returns:
        Arrays as they are stored, quantized ones as integers; None where this kind of file is not known.
    """
    files = sorted(p for p in path.rglob("*") if p.suffix in READERS) if path.is_dir() else [path]
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return list(_both_ways(_of_saved_model(path)))
    if not files or any(file.suffix not in READERS for file in files):
        return None
    return [array for file in files for array in _both_ways(READERS[file.suffix](file))]


def _both_ways(arrays: Iterator[Any]) -> Iterator[Any]:
    for array in arrays:
        if 2 <= array.ndim <= 4:
            yield array
            if array.ndim == 2:
                yield array.T


def _of_tflite(path: Path) -> Iterator[Any]:
    model = _litert_file.read(path.read_bytes())
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is None or tensor.type not in KINDS or tensor.shape is None:
                continue
            array = np.frombuffer(bytes(data), KINDS[tensor.type])
            if array.size == np.prod(tensor.shape):
                array = array.reshape(tensor.shape)
                # Kernels of convolutions are (outputs, height, width, inputs).
                yield array.transpose(1, 2, 3, 0) if array.ndim == 4 else array


def _of_onnx(path: Path) -> Iterator[Any]:
    for tensor in onnx.load(str(path)).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        # Kernels of convolutions are (outputs, inputs, height, width).
        yield array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _of_saved_model(path: Path) -> Iterator[Any]:
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    for name in reader.get_variable_to_shape_map():
        array = reader.get_tensor(name)
        if isinstance(array, np.ndarray):
            yield array


def _of_keras(path: Path) -> Iterator[Any]:
    yield from (np.asarray(variable) for variable in load_network(path).variables)


READERS = {".tflite": _of_tflite, ".onnx": _of_onnx, ".keras": _of_keras}
