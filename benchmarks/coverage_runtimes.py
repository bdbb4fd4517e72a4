"""Files of `benchmarks/coverage.py` in their real runtimes, compared with the model that they were made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# The name of Keras' own format and the file that it writes; Keras writes no int8.
KERAS_FORMATS = {
    "saved_model": ("tf_saved_model", "model"),
    "tflite": ("litert", "model.tflite"),
    "onnx": ("onnx", "model.onnx"),
    "openvino": ("openvino", "model.xml"),
}
# Largest difference as a fraction of the largest output. A model of half precision differs from itself by 1e-3.
EXACT, HALF = 1e-4, 1e-2
# Root mean square of the difference as a fraction of that of the outputs: 10 dB.
INT8 = 0.32
REDUCED = ("float16", "bfloat16")
STANDARD_DOMAINS = {"", "ai.onnx"}
THREADS = 1


@dataclasses.dataclass(frozen=True)
class Port:
    """An input of a file.

    Args:
        name: its name.
        shape: sizes; None or -1 for a free one.
        dtype: NumPy's name of its type.
    """

    name: str
    shape: tuple[Any, ...]
    dtype: str

    def takes(self, array: Any) -> bool:
        """Return whether the sizes after the batch, and the kind of the type, fit an array."""
        import numpy as np

        sizes = zip(self.shape[1:], array.shape[1:], strict=True) if len(self.shape) == array.ndim else [(0, 1)]
        same = np.issubdtype(np.dtype(self.dtype), np.floating) == np.issubdtype(array.dtype, np.floating)
        return (same or self.dtype == "int8") and all(not _is_fixed(mine) or mine == given for mine, given in sizes)


def _is_fixed(size: Any) -> bool:
    return isinstance(size, int) and size >= 0


def feed(ports: Sequence[Port], names: Sequence[str], arrays: Sequence[Any]) -> list[Any]:
    """Return the arrays in the order of a file's inputs: by name if all names are equal, else the first that fits.

    Raises:
        ValueError: an input fits no array.
    """
    by_name = dict(zip(names, arrays, strict=True))
    if set(by_name) == {port.name for port in ports}:
        return [by_name[port.name] for port in ports]
    left, found = list(arrays), []
    for port in ports:
        place = next((place for place, array in enumerate(left) if port.takes(array)), None)
        if place is None:
            raise ValueError(f"No array fits the input {port.name!r} {port.shape} {port.dtype}")
        found.append(left.pop(place))
    return found


def in_batches(ports: Sequence[Port], arrays: Sequence[Any], call: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """Return the outputs of all rows; a file of a fixed batch of 1 gets them one by one."""
    import numpy as np

    if ports[0].shape[0] != 1:
        return call(list(arrays))
    rows = [call([array[row : row + 1] for array in arrays]) for row in range(len(arrays[0]))]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def run_saved_model(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> list[Any]:
    """Return the outputs of the signature "serving_default" of a SavedModel in TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    ports = [Port(name, tuple(spec.shape), spec.dtype.name) for name, spec in specs.items()]

    def call(values: list[Any]) -> list[Any]:
        fed = {port.name: tf.constant(v, port.dtype) for port, v in zip(ports, values, strict=True)}
        return [value.numpy() for value in signature(**fed).values()]

    return in_batches(ports, feed(ports, names, arrays), call)


def run_tflite(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> list[Any]:
    """Return the outputs of a LiteRT file in the plain interpreter, without operators of TensorFlow."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=THREADS)
    inputs = interpreter.get_input_details()
    # Keras and TensorFlow write "serving_default_NAME:0".
    plain = [entry["name"].removeprefix("serving_default_").split(":")[0] for entry in inputs]
    shapes = [tuple(map(int, entry["shape_signature"])) for entry in inputs]
    dtypes = [np.dtype(entry["dtype"]).name for entry in inputs]
    ports = [Port(*values) for values in zip(plain, shapes, dtypes, strict=True)]

    def call(values: list[Any]) -> list[Any]:
        for entry, port, value in zip(inputs, ports, values, strict=True):
            if not all(map(_is_fixed, port.shape)):
                interpreter.resize_tensor_input(entry["index"], value.shape)
        interpreter.allocate_tensors()
        for entry, value in zip(inputs, values, strict=True):
            interpreter.set_tensor(entry["index"], _stored(value, entry))
        interpreter.invoke()
        details = interpreter.get_output_details()
        return [_real(interpreter.get_tensor(entry["index"]), entry) for entry in details]

    return in_batches(ports, feed(ports, names, arrays), call)


def _stored(value: Any, entry: dict[str, Any]) -> Any:
    """Return an array in the type of a LiteRT tensor, quantized if that is integers with a scale."""
    import numpy as np

    (scale, zero), dtype = entry["quantization"], np.dtype(entry["dtype"])
    if scale and np.issubdtype(dtype, np.integer) and np.issubdtype(value.dtype, np.floating):
        limits = np.iinfo(dtype)
        value = np.clip(np.round(value / scale) + zero, limits.min, limits.max)
    return value.astype(dtype)


def _real(value: Any, entry: dict[str, Any]) -> Any:
    """Return the numbers that a LiteRT tensor stands for."""
    scale, zero = entry["quantization"]
    return (value.astype("float32") - zero) * scale if scale else value


def run_onnx(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> list[Any]:
    """Return the outputs of an ONNX file, which is checked first, in ONNX Runtime."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ports = [Port(port.name, tuple(port.shape), _numpy_name(port.type)) for port in session.get_inputs()]

    def call(values: list[Any]) -> list[Any]:
        fed = {port.name: v.astype(port.dtype) for port, v in zip(ports, values, strict=True)}
        return session.run(None, fed)

    return in_batches(ports, feed(ports, names, arrays), call)


def _numpy_name(text: str) -> str:
    """Return NumPy's name of a type that ONNX Runtime writes as "tensor(float)"."""
    inner = text.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)


def run_openvino(path: Path, names: Sequence[str], arrays: Sequence[Any]) -> list[Any]:
    """Return the outputs of OpenVINO's .xml, or of the only one in a folder, in float32 on the processor."""
    import openvino

    file = next(path.glob("*.xml")) if path.is_dir() else path
    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ports = [
        Port(
            port.get_any_name(),
            tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()),
            port.get_element_type().to_dtype().name,
        )
        for port in compiled.inputs
    ]

    def call(values: list[Any]) -> list[Any]:
        found = compiled([v.astype(port.dtype) for port, v in zip(ports, values, strict=True)])
        return [value.copy() for value in found.values()]

    return in_batches(ports, feed(ports, names, arrays), call)


RUNNERS = {
    "saved_model": run_saved_model,
    "tflite": run_tflite,
    "tflite_int8": run_tflite,
    "onnx": run_onnx,
    "onnx_int8": run_onnx,
    "openvino": run_openvino,
}


def foreign_operators(path: Path) -> list[str]:
    """Return the operators of a file that plain LiteRT or standard ONNX does not have."""
    import onnx

    import export

    found = set(export.inspect(path).unsupported)
    if path.suffix == ".onnx":
        nodes = onnx.load(str(path), load_external_data=False).graph.node
        found |= {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in STANDARD_DOMAINS}
    return sorted(found)


def facts(path: Path) -> dict[str, Any]:
    """Return the size of the files of a model in bytes, and its foreign operators."""
    # OpenVINO has weights next to its .xml, ONNX those that are too large for the file.
    alone = path.is_file() and path.suffix == ".tflite"
    files = [path] if alone else _files(path)
    return {"bytes": sum(file.stat().st_size for file in files), "foreign": foreign_operators(path)}


def _files(path: Path) -> list[Path]:
    """Return the files of a model: those of a folder, or the one and what has its name and another suffix."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file() and file.suffix not in (".npz", ".json")]
    return [path, *path.parent.glob(f"{path.name}.*"), *path.parent.glob(f"{path.stem}.bin")]


def difference(expected: Sequence[Any], got: Sequence[Any], measure: Callable[[Any, Any], float]) -> float:
    """Return the largest error of the outputs; they may be in another order.

    Raises:
        ValueError: their number or a shape differs, or a value is not finite.
    """
    import numpy as np

    left, errors = [np.asarray(value, "float32") for value in got], []
    if len(left) != len(expected):
        raise ValueError(f"The file has {len(left)} outputs, the model {len(expected)}")
    if not all(np.isfinite(value).all() for value in left):
        raise ValueError("An output is not finite")
    for value in expected:
        same = [(measure(value, other), place) for place, other in enumerate(left) if other.shape == value.shape]
        if not same:
            raise ValueError(f"No output has the shape {value.shape}: {[other.shape for other in left]}")
        error, place = min(same)
        left.pop(place)
        errors.append(error)
    return max(errors)


def largest(value: Any, other: Any) -> float:
    """Return the largest difference as a fraction of the largest value."""
    import numpy as np

    return float(np.abs(value - other).max() / max(np.abs(value).max(), 1e-30))


def typical(value: Any, other: Any) -> float:
    """Return the root mean square of the difference as a fraction of that of the values."""
    import numpy as np

    return float(np.sqrt(np.mean((value - other) ** 2) / max(np.mean(value**2), 1e-30)))


def limit_of(name: str, model: Any) -> tuple[Callable[[Any, Any], float], float]:
    """Return how a format of a model is compared, and the largest error that passes."""
    if name not in KERAS_FORMATS:
        return typical, INT8
    is_half = any(layer.compute_dtype in REDUCED for layer in model.layers)
    return largest, HALF if is_half else EXACT


def passes(name: str, path: Path, model: Any, data: tuple[Sequence[Any], Any]) -> dict[str, Any]:
    """Run a file, and return "state", "reason" and "error".

    Args:
        name: the format.
        path: the file or folder.
        model: what it was made from.
        data: the arrays of the inputs, and the outputs of the model.
    """
    import keras
    import numpy as np

    arrays, expected = data
    names = [tensor.name for tensor in getattr(model, "inputs", None) or ()] or [str(n) for n in range(len(arrays))]
    got = RUNNERS[name](path, names, arrays)
    measure, limit = limit_of(name, model)
    wanted = [np.asarray(value, "float32") for value in keras.tree.flatten(expected)]
    error = difference(wanted, got, measure)
    passed = error <= limit
    reason = "" if passed else f"An error of {error:.2g} of the outputs, where {limit:g} is allowed"
    return {"state": "pass" if passed else "fail", "reason": reason, "error": error}
