"""Options of the ONNX formats, and their registration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from export.backends.onnx.rules import RULES
from export.backends.onnx.runtime import OnnxGenerator, OnnxRuntime
from export.core.format import Backend, register
from export.core.options import Options
from export.core.tolerance import Tolerance
from export.quantization.options import QuantizationOptions
from zoo.common.errors import BadOption

# The newest operator set with reduction axes as attributes, which the passes read; newer ones are converted at the end.
OPSET = 17


@dataclasses.dataclass(frozen=True)
class OnnxOptions(Options):
    """Options of every ONNX format.

    Args:
        opset: the operator set.
        batch: the batch size, 0 for a dynamic one.
        axis: name of the dynamic batch axis.
        external: store the weights in NAME.data next to NAME; above two gigabytes this is always so.
    """

    opset: Literal[17, 18, 19, 20, 21] = OPSET
    batch: int = 0
    axis: str = "batch"
    external: bool = False

    def __post_init__(self) -> None:
        if self.batch < 0:
            raise BadOption(f"batch must be at least 1, or 0 for a dynamic batch. Received: batch={self.batch}")
        if not self.axis.isidentifier():
            raise BadOption(f"axis must be a name of letters, digits and underscores. Received: axis={self.axis!r}")


@dataclasses.dataclass(frozen=True)
class Int8Options(OnnxOptions):
    """Options of the ONNX formats with int8 weights.

    Args:
        reduce_range: use 7 of the 8 bits of weights. ONNX Runtime's default kernels on x86 without VNNI then do not
            saturate; a session with `session.x64quantprecision` set to "1" does not either, and takes 8 bits.
    """

    reduce_range: bool = False


@dataclasses.dataclass(frozen=True)
class StaticOptions(QuantizationOptions, Int8Options):
    """Options of the ONNX format with int8 weights and calibrated activations."""


PLAIN = OnnxOptions()
PLAIN_STATIC = StaticOptions()
PACKAGES = ("tensorflow", "tf2onnx", "onnx", "onnxruntime")


def register_onnx(
    name: str,
    write: Callable[..., None],
    tolerance: Tolerance,
    summary: str,
    guarantees: tuple[str, ...] = (),
    options: type[OnnxOptions] = OnnxOptions,
) -> None:
    """Register a format of ONNX files; it supports sequence-to-sequence models too.

    Args:
        name: what users ask for.
        write: `write(source, path, options)`.
        tolerance: how far an artifact may be from its source model.
        summary: one line for `zoo formats`.
        guarantees: see `export.core.format.Format`.
        options: the dataclass of its options.
    """
    register(
        name,
        file="model.onnx",
        write=write,
        load=OnnxRuntime,
        tolerance=tolerance,
        summary=summary,
        generate=Backend("", write, OnnxGenerator, tolerance.for_sequences()),
        options=options,
        guarantees=guarantees,
        rules=RULES,
        loops=False,
        packages=PACKAGES,
    )
