"""What ONNX files can be asked for, how far they may be from their source, and how they are registered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from export.backends.onnx.rules import RULES
from export.backends.onnx.runtime import OnnxRuntime, OnnxWriter
from export.core.format import Backend, Tolerance, register
from export.core.options import Options
from zoo.common.errors import BadOption

# The newest whose reductions state their axes as attributes, which the passes read; newer ones are converted to last.
OPSET = 17


@dataclasses.dataclass(frozen=True)
class OnnxOptions(Options):
    """Options of every ONNX file.

    Args:
        opset: the operator set.
        batch: examples at a time, 0 for any number.
        axis: name of the batch axis where it is free.
        external: weights lie in a file of their own, NAME.data beside NAME; above two gigabytes they always do.
    """

    opset: Literal[17, 18, 19, 20, 21] = OPSET
    batch: int = 0
    axis: str = "batch"
    external: bool = False

    def __post_init__(self) -> None:
        if self.batch < 0:
            raise BadOption(f"batch must be at least 1, or 0 for any number. Received: batch={self.batch}")
        if not self.axis.isidentifier():
            raise BadOption(f"axis must be a name of letters, digits and underscores. Received: axis={self.axis!r}")


PLAIN = OnnxOptions()
PACKAGES = ("tensorflow", "tf2onnx", "onnx", "onnxruntime")


def register_onnx(
    name: str, writer: Callable[..., None], tolerance: Tolerance, summary: str, guarantees: tuple[str, ...] = ()
) -> None:
    """Register a format of ONNX files, of networks that write sequences too.

    Args:
        name: what users ask for.
        writer: `write(source, path, options)`.
        tolerance: how far it may be from its source.
        summary: one line for people.
        claims: what its name promises, see `export.core.format.Format`.
    """
    register(
        name,
        file="model.onnx",
        write=writer,
        load=OnnxRuntime,
        tolerance=tolerance,
        summary=summary,
        generate=Backend("", writer, OnnxWriter, tolerance.of_sequences()),
        options=OnnxOptions,
        guarantees=guarantees,
        rules=RULES,
        packages=PACKAGES,
    )
