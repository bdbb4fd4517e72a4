"""Time files of one runtime in turns: `inference_time.py MODEL THREADS '{"name": "path"}' [profile]`.

Prints the seconds of every call by name and round as a JSON object; with `profile`, milliseconds by operator of the
first file. Peers run with the same options as ours.
"""

from __future__ import annotations

import collections
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from export.benchmark.statistics import run_rounds, time_calls
from export.core.format import formats

RUNS = 20


def onnx(path: Path, threads: int, pixels: np.ndarray, **settings: Any) -> Callable[[], Any]:
    """Return a call of an ONNX file in ONNX Runtime."""
    from export.backends.onnx.runtime import session_options

    tool = importlib.import_module("onnxruntime")
    made = session_options(threads)
    for key, value in settings.items():
        setattr(made, key, value)
    session = tool.InferenceSession(str(path), made, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    feed = {given.name: fitting(pixels, given.shape)}

    def call() -> Any:
        return session.run(None, feed)

    call.session = session
    return call


def tflite(path: Path, threads: int, pixels: np.ndarray) -> Callable[[], Any]:
    """Return a call of a .tflite in LiteRT."""
    tool = importlib.import_module("ai_edge_litert.interpreter")
    made = tool.Interpreter(model_path=str(path), num_threads=threads)
    (given,) = made.get_input_details()
    made.resize_tensor_input(given["index"], pixels.shape)
    made.allocate_tensors()
    made.set_tensor(given["index"], pixels.astype(given["dtype"]))
    return made.invoke


def xml(path: Path, threads: int, pixels: np.ndarray, **settings: Any) -> Callable[[], Any]:
    """Return a call of an OpenVINO model, compiled as `export.backends.openvino.runtime` does."""
    tool = importlib.import_module("openvino")
    model = tool.Core().read_model(str(path))
    wanted = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = tool.compile_model(model, "CPU", wanted | settings).create_infer_request()
    (given,) = model.inputs
    shape = [None if size.is_dynamic else size.get_length() for size in given.partial_shape]
    feed = {0: fitting(pixels, shape)}

    def call() -> Any:
        return request.infer(feed)

    call.session = request
    return call


def saved_model(path: Path, threads: int, pixels: np.ndarray) -> Callable[[], Any]:
    """Return a call of Keras' SavedModel."""
    import tensorflow as tf

    # The number of threads belongs to the process, and our runtime may have set it already.
    if threads != (tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    loaded = tf.saved_model.load(str(path))
    serve, values = loaded.signatures["serving_default"], tf.constant(pixels)
    ((name, _),) = serve.structured_input_signature[1].items()

    def call() -> Any:
        return [value.numpy() for value in serve(**{name: values}).values()]

    call.loaded = loaded
    return call


def fitting(pixels: np.ndarray, shape: Any) -> np.ndarray:
    """Return pixels (1, height, width, 3), channels first if the shape has 3 channels there."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if shape[1] == 3 else pixels


def ours(path: Path, threads: int, pixels: np.ndarray) -> Callable[[], Any]:
    """Return a call of one of our artifacts, through its runtime; its folder has the name of the format."""
    fmt = formats[path.name]
    runtime = fmt.load(path / fmt.file if fmt.file else path, threads=threads)
    return lambda: runtime.step(pixels)


PEERS = {".onnx": onnx, ".tflite": tflite, ".xml": xml, "": saved_model}
INSIDE = {"onnx": "model.onnx", "openvino": "model.xml"}


def main(model: str, threads: int, files: dict[str, str]) -> dict[str, list[list[float]]]:
    """Return the seconds of each call, by name and round."""
    shape = zoo.spec(model).input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype("float32")
    calls = {name: opener(Path(path))(Path(path), threads, pixels) for name, path in files.items()}
    return run_rounds({name: lambda call=call: time_calls(call) for name, call in calls.items()})


def opener(path: Path) -> Callable[..., Callable[[], Any]]:
    """Return the function that opens a file; ours are in the folder `ours`."""
    return ours if path.parent.name == "ours" else PEERS[path.suffix]


def profile(model: str, threads: int, files: dict[str, str]) -> dict[str, float]:
    """Return milliseconds by operator type of one file, longest first; for LiteRT the number of operators."""
    ((_, place),) = files.items()
    path = Path(place)
    inside = [*path.glob("*.onnx"), *path.glob("*.xml")] if path.is_dir() else [path]
    shape = zoo.spec(model).input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype("float32")
    inside += path.glob("*.tflite")
    profilers = {".onnx": _profile_onnx, ".xml": _profile_xml, ".tflite": _count_tflite}
    profiler = profilers.get(inside[0].suffix if inside else "")
    if profiler is None:
        return {}
    return dict(profiler(inside[0], threads, pixels).most_common())


def _profile_onnx(path: Path, threads: int, pixels: np.ndarray) -> collections.Counter:
    with tempfile.TemporaryDirectory() as folder:
        call = onnx(path, threads, pixels, enable_profiling=True, profile_file_prefix=f"{folder}/p")
        for _ in range(RUNS):
            call()
        events = json.loads(Path(call.session.end_profiling()).read_text())
    found: collections.Counter = collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["args"]["op_name"]] += event["dur"] / 1e3 / RUNS
    return found


def _profile_xml(path: Path, threads: int, pixels: np.ndarray) -> collections.Counter:
    call = xml(path, threads, pixels, PERF_COUNT=True)
    found: collections.Counter = collections.Counter()
    for _ in range(RUNS):
        call()
        for node in call.session.get_profiling_info():
            found[f"{node.node_type} {node.exec_type}"] += node.real_time.total_seconds() * 1e3 / RUNS
    return found


def _count_tflite(path: Path, threads: int, _: np.ndarray) -> collections.Counter:
    """Return the number of operators by type: LiteRT's Python API has no times."""
    tool = importlib.import_module("ai_edge_litert.interpreter")
    found = tool.Interpreter(model_path=str(path), num_threads=threads)._get_ops_details()
    return collections.Counter(operator["op_name"] for operator in found)


if __name__ == "__main__":
    job = profile if sys.argv[4:] == ["profile"] else main
    print(json.dumps(job(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))))
