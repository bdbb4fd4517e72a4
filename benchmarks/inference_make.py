"""Make the files that inference.py measures: `inference_make.py ours|keras|openvino|quantized MODEL FOLDER`.

Prints the seconds of each file, or the error, as a JSON object. Existing files are left alone.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zoo

CALIBRATION = 16
# Formats of every model, and more of transformers.
FORMATS = ("onnx", "onnx_int8", "tflite", "tflite_int8", "openvino", "openvino_int8", "saved_model")
DYNAMIC = ("onnx_dynamic", "tflite_dynamic")
TRANSFORMERS = ("vit_", "deit_")


def images(model: str) -> np.ndarray:
    """Return random pixels (n, height, width, 3), float32 from 0 to 255."""
    shape = zoo.spec(model).input_shape
    return np.random.default_rng(0).integers(0, 256, (CALIBRATION, *shape)).astype("float32")


def attempt(write: Callable[[Path], Any], path: Path) -> float | str:
    """Write a file or folder atomically unless it exists; returns the seconds or the error."""
    if path.exists():
        return "exists"
    # Exporters need the suffix; OpenVINO saves weights in a file of the same name.
    place = path.parent / f".making-{os.getpid()}-{path.name}"
    place.mkdir(parents=True)
    start = time.perf_counter()
    try:
        write(place / path.name)
    except Exception as error:
        shutil.rmtree(place)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    seconds = time.perf_counter() - start
    for part in sorted(place.iterdir(), key=lambda p: p.name == path.name):
        os.replace(part, path.parent / part.name)
    shutil.rmtree(place)
    return seconds


def ours(model: str, folder: Path) -> dict[str, Any]:
    """Write every format; formats derived from another come after it."""
    from export.core.format import formats
    from export.source.source import SourceModel

    spec = zoo.spec(model)
    labels = [str(i) for i in range(spec.classes)]
    scratch = folder / f".source-{os.getpid()}"
    source = SourceModel(zoo.get(model), spec.preprocessing, labels, lambda count: images(model)[:count], scratch)
    known = [name for name in (*FORMATS, *(DYNAMIC if model.startswith(TRANSFORMERS) else ())) if name in formats]
    found = {name: attempt(functools.partial(_write, source, name), folder / "ours" / name) for name in known}
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def _write(source: Any, name: str, path: Path) -> None:
    """Write a format into a folder."""
    from export.core.format import formats

    written = source.artifact_path(name)
    file = formats[name].file
    path.mkdir()
    target = path / file if file else path
    shutil.copytree(written, target, dirs_exist_ok=True) if written.is_dir() else shutil.copy(written, target)
    for weights in written.parent.glob(f"{written.name}.data"):
        shutil.copy(weights, path)


def keras(model: str, folder: Path) -> dict[str, Any]:
    """Write the files of Keras' own exporters for our model with its preprocessing."""
    from export.source.source import SourceModel

    spec, few = zoo.spec(model), images(model)
    keras_model = SourceModel(zoo.get(model), spec.preprocessing, [], lambda count: few[:count], folder).model
    keras_model(few[:1])  # the ONNX exporter needs a called model

    def converted(path: Path, **options: Any) -> None:
        import tensorflow as tf

        keras_model.export(str(path), "litert", verbose=False, optimizations=[tf.lite.Optimize.DEFAULT], **options)

    def examples() -> Any:
        return ([few[i : i + 1]] for i in range(len(few)))

    writers: dict[str, Callable[[Path], Any]] = {
        "keras.onnx": lambda path: keras_model.export(str(path), "onnx", verbose=False),
        "keras.tflite": lambda path: keras_model.export(str(path), "litert", verbose=False),
        "keras_int8.tflite": lambda path: converted(path, representative_dataset=examples),
        "keras_openvino.xml": lambda path: keras_model.export(str(path), "openvino", verbose=False),
        "keras_saved_model": lambda path: keras_model.export(str(path), "tf_saved_model", verbose=False),
    }
    if model.startswith(TRANSFORMERS):
        writers["keras_dynamic.tflite"] = converted
    return {name: attempt(write, folder / name) for name, write in writers.items()}


def openvino(model: str, folder: Path) -> dict[str, Any]:
    """Write OpenVINO's conversion of timm's ONNX file, and its quantization by NNCF."""
    tool = importlib.import_module("openvino")
    keras_model = tool.convert_model(str(folder / "timm.onnx"))

    def quantize(path: Path) -> None:
        nncf = importlib.import_module("nncf")
        kind = {"model_type": nncf.ModelType.TRANSFORMER} if model.startswith(TRANSFORMERS) else {}
        small = nncf.quantize(keras_model, nncf.Dataset(channels_first(model)), **kind)
        tool.save_model(small, str(path), compress_to_fp16=False)

    return {
        "timm_openvino.xml": attempt(
            lambda path: tool.save_model(keras_model, str(path), compress_to_fp16=False), folder / "timm_openvino.xml"
        ),
        "timm_nncf.xml": attempt(quantize, folder / "timm_nncf.xml"),
    }


def channels_first(model: str) -> list[np.ndarray]:
    """Return the images one by one, channels first: (1, 3, height, width)."""
    return [np.ascontiguousarray(image.transpose(2, 0, 1)[None]) for image in images(model)]


def quantized(model: str, folder: Path) -> dict[str, Any]:
    """Write timm's ONNX file after ONNX Runtime's quantizers with their defaults."""
    tool = importlib.import_module("onnxruntime.quantization")
    floating = str(folder / "timm.onnx")
    name = _input_name(floating)

    class Reader(tool.CalibrationDataReader):
        """Returns the calibration images one by one."""

        def __init__(self) -> None:
            self._rest = iter([{name: image} for image in channels_first(model)])

        def get_next(self) -> dict[str, Any] | None:
            """Return the next image."""
            return next(self._rest, None)

    found = {
        "timm_int8.onnx": attempt(
            lambda path: tool.quantize_static(floating, str(path), Reader()), folder / "timm_int8.onnx"
        )
    }
    if model.startswith(TRANSFORMERS):
        write = functools.partial(_dynamic, tool, floating)
        found["timm_dynamic.onnx"] = attempt(write, folder / "timm_dynamic.onnx")
    return found


def _dynamic(tool: Any, floating: str, path: Path) -> None:
    tool.quantize_dynamic(floating, str(path))


def _input_name(path: str) -> str:
    import onnx

    return onnx.load(path, load_external_data=False).graph.input[0].name


MAKERS = {"ours": ours, "keras": keras, "openvino": openvino, "quantized": quantized}

if __name__ == "__main__":
    maker, model_, folder_ = sys.argv[1:]
    print(json.dumps(MAKERS[maker](model_, Path(folder_))))
