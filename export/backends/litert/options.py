"""What LiteRT files can be asked for, how far they may be from their source, and how they are registered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from export.backends.litert.rules import rules_for
from export.backends.litert.runtime import LiteRuntime, LiteWriter
from export.core.format import Backend, Tolerance, register
from export.core.options import Options, changed
from zoo.common.errors import BadOption


@dataclasses.dataclass(frozen=True)
class LiteOptions(Options):
    """Options of every LiteRT file.

    Args:
        batch: examples at a time, which a file for phones must fix.
    """

    batch: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise BadOption(f"batch must be at least 1. Received: batch={self.batch}")

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise BadOption where ids or several inputs would need another dtype."""
        asked = changed(self).keys() & {"input", "output"}
        if asked and facts["task"] == "generate":
            raise BadOption(f"A network that writes sequences keeps its dtypes. Received: options={sorted(asked)}")
        if "input" in asked and facts["dtype"] != "float32":
            raise BadOption(f"The input is {facts['dtype']} ids, which stay what they are. Received: options=['input']")


@dataclasses.dataclass(frozen=True)
class FloatOptions(LiteOptions):
    """Options of what computes in float32.

    Args:
        input: dtype of the input; "uint8" for pixels as cameras give them, four times smaller.
        flex: whether TensorFlow's own operators may be used, which plain LiteRT lacks.
    """

    input: Literal["float32", "uint8"] = "float32"
    flex: bool = False

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise BadOption for bytes that are no pixels."""
        super().check(facts)
        if self.input == "uint8" and facts["input"] != "image":
            raise BadOption(f"Only pixels are bytes. Received: input=uint8 for a network of {facts['input']}")


@dataclasses.dataclass(frozen=True)
class IntegerOptions(LiteOptions):
    """Options of what computes in int8.

    Args:
        input: dtype of the input; of rows of a table it is float32 always.
        output: dtype of the output.
    """

    input: Literal["int8", "uint8", "float32"] = "int8"
    output: Literal["int8", "uint8", "float32"] = "int8"

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise BadOption for rows of a table as bytes."""
        super().check(facts)
        if self.input == "uint8" and "tabular" in facts:
            raise BadOption("Columns differ in their ranges, so that a table enters as float32. Received: input=uint8")


@dataclasses.dataclass(frozen=True)
class WideOptions(LiteOptions):
    """Options of what has int16 activations.

    Args:
        input: dtype of the input.
        output: dtype of the output.
    """

    input: Literal["float32", "int16"] = "float32"
    output: Literal["float32", "int16"] = "float32"


def register_litert(
    name: str,
    writer: Callable[..., None],
    *,
    tolerance: Tolerance,
    options: type[LiteOptions],
    summary: str,
    guarantees: tuple[str, ...] = (),
    writes: bool = True,
) -> None:
    """Register a format of .tflite files.

    Args:
        name: what users ask for.
        writer: `write(source, path, options)`.
        tolerance: how far it may be from its source.
        options: the dataclass of its options.
        summary: one line for people.
        claims: what its name promises, see `export.core.format.Format`.
        writes: whether it keeps networks that write sequences too.
    """
    register(
        name,
        file="model.tflite",
        write=writer,
        load=LiteRuntime,
        tolerance=tolerance,
        summary=summary,
        generate=Backend("model.tflite", writer, LiteWriter, tolerance.of_sequences()) if writes else None,
        options=options,
        guarantees=guarantees,
        rules=rules_for(guarantees),
        packages=("tensorflow", "ai_edge_litert", "litert_quantizer"),
    )
