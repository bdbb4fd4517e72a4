"""ONNX files in ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx.external import check_domains, read
from export.core.generate import INTERFACE
from export.core.runtime import Tensor
from export.core.sessions import SessionGenerator, SessionRuntime
from zoo.common.errors import RunError
from zoo.common.lazy import LazyModule
from zoo.common.processor import saturates_int8
from zoo.reading.json_files import parse_json

if TYPE_CHECKING:
    import numpy as _np

ort = LazyModule("onnxruntime")

DTYPES = {"float": "float32"}
# The file of each part of a sequence-to-sequence model.
FILES = {"encode": "encoder.onnx", "decode": "decoder.onnx"}


def session_options(threads: int | None, model: Any = None) -> Any:
    """Return session options that log errors only.

    On x86 without VNNI the fast products of uint8 activations and int8 weights saturate, which costs a small ResNet 18
    dB of its logits; slower products that do not are used there. ONNX Runtime 1.31 has none for a weight that several
    operators read.

    Args:
        threads: threads within an operator, ONNX Runtime's choice by default.
        model: the onnx.ModelProto of the session, if it may be quantized.
    """
    options = ort.SessionOptions()
    if saturates_int8() and not (model is not None and _shares_weights(model)):
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    return options


def _shares_weights(model: Any) -> bool:
    """Return whether several operators read one quantized weight, as the unrolled steps of a recurrent layer do."""
    constants = {tensor.name for tensor in model.graph.initializer}
    weights = {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    read = [name for node in model.graph.node for name in node.input if name in weights]
    return len(read) > len(set(read))


class Session:
    """An opened ONNX file.

    Args:
        path: the file.
        threads: threads within an operator, ONNX Runtime's choice by default.

    Attributes:
        inputs: its inputs.
        outputs: its outputs.
        metadata: the metadata in the file, None if there is none.

    Raises:
        RunError: the file cannot be read, has custom operators, or names data outside its own folder.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        model = read(path)
        check_domains(model, path)
        try:
            self._session = ort.InferenceSession(
                str(path), session_options(threads, model), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # ONNX Runtime has many exception types.
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"Expected a file that ONNX Runtime runs. Received: {path}: {reason}") from error
        self.inputs = tuple(map(_tensor, self._session.get_inputs()))
        self.outputs = tuple(map(_tensor, self._session.get_outputs()))
        text = self._session.get_modelmeta().custom_metadata_map.get("zoo")
        self.metadata = None if text is None else parse_json(text, dict)

    def run(self, values: dict[str, _np.ndarray]) -> list[_np.ndarray]:
        """Return all outputs."""
        return self._session.run(None, values)


class OnnxRuntime(SessionRuntime):
    """An ONNX file with one input and one output.

    Args:
        path: the file.
        threads: threads within an operator, ONNX Runtime's choice by default.
    """

    library = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__(Session(path, threads))


class OnnxGenerator(SessionGenerator):
    """A folder with encoder.onnx and decoder.onnx.

    Args:
        path: the folder.
        threads: threads within an operator, ONNX Runtime's choice by default.
    """

    library = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__({part: Session(path / FILES[part], threads) for part in INTERFACE})


def _tensor(value: Any) -> Tensor:
    """Return an input or output; named sizes are dynamic."""
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    return Tensor(value.name, shape, DTYPES.get(dtype, dtype))
