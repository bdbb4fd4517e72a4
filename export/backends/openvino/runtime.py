"""OpenVINO networks: an .xml file with its weights in a .bin file beside it, run on the processor."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.generate import INTERFACE
from export.core.options import Options, with_options
from export.core.quiet import quiet
from export.core.runtime import Tensor
from export.core.sessions import SessionGenerator, SessionRuntime
from zoo.common.errors import BadOption, RunError
from zoo.common.lazy import LazyModule, np, require

if TYPE_CHECKING:
    import numpy as _np

    from export.source.source import Part, SourceModel

EXTRA = "openvino"
openvino = LazyModule("openvino", extra=EXTRA)

# The network of each part; "serving_default" stands for the only one.
FILES = {"serving_default": "model.xml", "encode": "encoder.xml", "decode": "decoder.xml"}
DTYPES = {"f32": "float32", "f16": "float16", "i32": "int32", "i64": "int64", "i8": "int8", "u8": "uint8"}
# Facts that readers who do not know the zoo look for; strings as they are, all else as JSON.
SHOWN = ("model", "task", "labels", "preprocessing")


@dataclasses.dataclass(frozen=True)
class OpenVinoOptions(Options):
    """Options of OpenVINO networks.

    Args:
        batch: examples at a time, 0 for any number.
    """

    batch: int = 0

    def __post_init__(self) -> None:
        if self.batch < 0:
            raise BadOption(f"batch must be at least 1, or 0 for any number. Received: batch={self.batch}")

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise MissingDependency if OpenVINO is not installed, before anything is converted."""
        require("openvino", extra=EXTRA)


PLAIN = OpenVinoOptions()


def files_of(source: SourceModel, folder: Path) -> Iterator[tuple[Part, Path]]:
    """Yield the parts of a model, each with its file."""
    for part in source.parts:
        yield part, folder / FILES[part.name]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Have OpenVINO's converter and quantizer neither print nor, as they do by themselves, report their use."""
    asked = {"CI": "true", "NNCF_CI": "1"}
    kept = {name: os.environ.get(name) for name in asked}
    os.environ.update(asked)
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def convert(path: Path) -> Any:
    """Return the network in an ONNX file, with what is constant computed: as read, it would keep shape arithmetic."""
    with silent():
        return openvino.convert_model(str(path))


def read(path: Path) -> Any:
    """Return the network in an .xml file.

    Raises:
        RunError: it is none.
    """
    try:
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"Expected a network that OpenVINO reads. Received: {path}: {reason}") from error


def save(network: Any, source: SourceModel, part: Part, path: Path, given: OpenVinoOptions) -> None:
    """Write a network with its facts in `rt_info`, under "zoo" and one by one.

    Args:
        network: an openvino.Model with the names of the part.
        source: what it was made from.
        part: the part that it is.
        path: the .xml file.
        given: what was asked for.
    """
    shapes = {name: (given.batch or -1, *shape) for name, (shape, _) in part.inputs.items()}
    network.reshape({name: openvino.PartialShape(list(shape)) for name, shape in shapes.items()})
    for tensor in network.inputs:
        if len(shapes[tensor.any_name]) == 4 and source.metadata["input"] == tensor.any_name:
            tensor.get_node().set_layout(openvino.Layout("NHWC"))
    facts = with_options(source.metadata, given)
    network.set_rt_info(json.dumps(facts), ["zoo"])
    for key in SHOWN:
        if facts.get(key) is not None:
            network.set_rt_info(facts[key] if isinstance(facts[key], str) else json.dumps(facts[key]), [key])
    # Half-precision weights are OpenVINO's default, and are another format.
    openvino.save_model(network, str(path), compress_to_fp16=False)


class Compiled:
    """One network, compiled in float32: left alone, OpenVINO computes in bfloat16 where the processor can.

    Args:
        path: the .xml file.
        threads: threads within an operator, OpenVINO's choice by default.

    Attributes:
        inputs: its inputs.
        outputs: its outputs.
        metadata: what was written into the file, None if nothing was.

    Raises:
        RunError: it cannot be read.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        network = read(path)
        self.inputs, self.outputs = tuple(map(_tensor, network.inputs)), tuple(map(_tensor, network.outputs))
        written = network.get_rt_info(["zoo"]).astype(str) if network.has_rt_info(["zoo"]) else None
        self.metadata = None if written is None else json.loads(written)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._request = openvino.compile_model(network, "CPU", settings).create_infer_request()

    def run(self, values: dict[str, _np.ndarray]) -> list[_np.ndarray]:
        """Return all outputs."""
        found = self._request.infer(values)
        return [np.array(found[i]) for i in range(len(self.outputs))]


class OpenVinoRuntime(SessionRuntime):
    """A network that gives logits.

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
    """Return what OpenVINO says about an input or output."""
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    dtype = port.element_type.get_type_name()
    return Tensor(port.any_name, shape, DTYPES.get(dtype, dtype))
