"""OpenVINO models: an .xml file with the weights in a .bin file next to it, run on the CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.openvino.inspect import check_layers
from export.core.generate import INTERFACE
from export.core.options import Options, with_options
from export.core.quiet import quiet
from export.core.runtime import Tensor
from export.core.sessions import SessionGenerator, SessionRuntime
from zoo.common.errors import BadOption, RunError
from zoo.common.lazy import LazyModule, np, require
from zoo.reading.json_files import parse_json

if TYPE_CHECKING:
    import numpy as _np

    from export.source.source import Part, SourceModel

EXTRA = "openvino"
openvino = LazyModule("openvino", extra=EXTRA)

# The file of each part; "serving_default" if there is one part.
FILES = {"serving_default": "model.xml", "encode": "encoder.xml", "decode": "decoder.xml"}
DTYPES = {"f32": "float32", "f16": "float16", "i32": "int32", "i64": "int64", "i8": "int8", "u8": "uint8"}
# Metadata keys that are also separate entries of `rt_info`: strings as they are, all others as JSON.
PROPERTIES = ("model", "task", "labels", "preprocessing")


@dataclasses.dataclass(frozen=True)
class OpenVinoOptions(Options):
    """Options of the OpenVINO formats.

    Args:
        batch: the batch size, 0 for a dynamic one.
    """

    batch: int = 0

    def __post_init__(self) -> None:
        if self.batch < 0:
            raise BadOption(f"batch must be at least 1, or 0 for a dynamic batch. Received: batch={self.batch}")

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise MissingDependency if OpenVINO is not installed, before anything is converted."""
        require("openvino", extra=EXTRA)


PLAIN = OpenVinoOptions()


def files_of(source: SourceModel, folder: Path) -> Iterator[tuple[Part, Path]]:
    """Yield the parts of a model, each with its file."""
    for part in source.parts:
        yield part, folder / FILES[part.name]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Silence OpenVINO's converter and quantizer, and disable their telemetry."""
    variables = {"CI": "true", "NNCF_CI": "1"}
    saved = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def convert(path: Path) -> Any:
    """Return the model in an ONNX file after constant folding; `Core.read_model` would keep shape arithmetic."""
    with silent():
        return openvino.convert_model(str(path))


def read(path: Path) -> Any:
    """Return the model in an .xml file.

    Raises:
        RunError: OpenVINO cannot read it, or it has layers of an extension.
    """
    check_layers(path)
    try:
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"Expected a model that OpenVINO reads. Received: {path}: {reason}") from error


def save(model: Any, source: SourceModel, part: Part, path: Path, options: OpenVinoOptions) -> None:
    """Write a model with its metadata in `rt_info`, under "zoo" and as separate entries.

    Args:
        model: an openvino.Model with the part's names.
        source: its source model.
        part: its part.
        path: the .xml file.
        options: the format's options.
    """
    shapes = {name: (options.batch or -1, *shape) for name, (shape, _) in part.inputs.items()}
    model.reshape({name: openvino.PartialShape(list(shape)) for name, shape in shapes.items()})
    for tensor in model.inputs:
        if len(shapes[tensor.any_name]) == 4 and source.metadata["input"] == tensor.any_name:
            tensor.get_node().set_layout(openvino.Layout("NHWC"))
    metadata = with_options(source.metadata, options)
    model.set_rt_info(json.dumps(metadata), ["zoo"])
    for key in PROPERTIES:
        if metadata.get(key) is not None:
            model.set_rt_info(metadata[key] if isinstance(metadata[key], str) else json.dumps(metadata[key]), [key])
    # OpenVINO's default is float16 weights.
    openvino.save_model(model, str(path), compress_to_fp16=False)


class Compiled:
    """A model compiled in float32; by default OpenVINO computes in bfloat16 if the CPU supports it.

    Args:
        path: the .xml file.
        threads: threads within an operator, OpenVINO's choice by default.

    Attributes:
        inputs: its inputs.
        outputs: its outputs.
        metadata: the metadata in the file, None if there is none.

    Raises:
        RunError: it cannot be read.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        model = read(path)
        self.inputs, self.outputs = tuple(map(_tensor, model.inputs)), tuple(map(_tensor, model.outputs))
        text = model.get_rt_info(["zoo"]).astype(str) if model.has_rt_info(["zoo"]) else None
        self.metadata = None if text is None else parse_json(text, dict)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._request = openvino.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, values: dict[str, _np.ndarray]) -> list[_np.ndarray]:
        """Return all outputs."""
        outputs = self._request.infer(values)
        return [np.array(outputs[i]) for i in range(len(self.outputs))]


class OpenVinoRuntime(SessionRuntime):
    """A model with one input and one output.

    Args:
        path: the folder with model.xml.
        threads: threads within an operator, OpenVINO's choice by default.
    """

    library = "openvino"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__(Compiled(path / FILES["serving_default"], threads))


class OpenVinoGenerator(SessionGenerator):
    """A folder with encoder.xml and decoder.xml.

    Args:
        path: the folder.
        threads: threads within an operator, OpenVINO's choice by default.
    """

    library = "openvino"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__({part: Compiled(path / FILES[part], threads) for part in INTERFACE})


def _tensor(port: Any) -> Tensor:
    """Return an input or output."""
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    dtype = port.element_type.get_type_name()
    return Tensor(port.any_name, shape, DTYPES.get(dtype, dtype))
