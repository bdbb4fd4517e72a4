"""Options of the LiteRT formats, and their registration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from export.backends.litert.rules import rules_for
from export.backends.litert.runtime import LiteRtGenerator, LiteRtRuntime
from export.core.format import Backend, register
from export.core.options import Options, changed_options
from export.core.tolerance import Tolerance
from export.quantization.options import PreparationOptions, QuantizationOptions
from zoo.common.errors import BadOption
from zoo.specs.tasks import task_of


@dataclasses.dataclass(frozen=True)
class LiteRtOptions(Options):
    """Options of every LiteRT format.

    Args:
        batch: the static batch size.
    """

    batch: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise BadOption(f"batch must be at least 1. Received: batch={self.batch}")

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise BadOption for dtypes of sequence-to-sequence models or of token ids."""
        dtypes = changed_options(self).keys() & {"input", "output"}
        if dtypes and task_of(metadata["task"]).generates:
            raise BadOption(
                "input and output do not apply to sequence-to-sequence models. "
                f"Received: options={sorted(dtypes)}. Leave them out."
            )
        if "input" in dtypes and metadata["dtype"] != "float32":
            raise BadOption(
                f"input does not apply to {metadata['dtype']} ids. Received: options=['input']. Leave it out."
            )


@dataclasses.dataclass(frozen=True)
class FloatOptions(LiteRtOptions):
    """Options of LiteRT formats with float activations.

    Args:
        input: dtype of the input; "uint8" for pixels as cameras deliver them, a quarter of the size.
        flex: allow TensorFlow operators (Flex), which plain LiteRT lacks.
    """

    input: Literal["float32", "uint8"] = "float32"
    flex: bool = False

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise BadOption for uint8 inputs of models that take no images."""
        super().check(metadata)
        if self.input == "uint8" and metadata["input"] != "image":
            raise BadOption(f"uint8 applies to images. Received: input=uint8 for a model of {metadata['input']}")


@dataclasses.dataclass(frozen=True)
class IntegerOptions(QuantizationOptions, LiteRtOptions):
    """Options of LiteRT formats in int8.

    Args:
        input: dtype of the input; tabular models always take float32.
        output: dtype of the output.
    """

    input: Literal["int8", "uint8", "float32"] = "int8"
    output: Literal["int8", "uint8", "float32"] = "int8"

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise BadOption for uint8 inputs of tabular models."""
        super().check(metadata)
        if self.input == "uint8" and "tabular" in metadata:
            raise BadOption("Columns have different ranges: tabular models take float32. Received: input=uint8")


@dataclasses.dataclass(frozen=True)
class Int16Options(PreparationOptions, LiteRtOptions):
    """Options of LiteRT formats with int16 activations.

    Args:
        input: dtype of the input.
        output: dtype of the output.
    """

    input: Literal["float32", "int16"] = "float32"
    output: Literal["float32", "int16"] = "float32"


def register_litert(
    name: str,
    write: Callable[..., None],
    *,
    tolerance: Tolerance,
    options: type[LiteRtOptions],
    summary: str,
    guarantees: tuple[str, ...] = (),
    sequences: bool = True,
) -> None:
    """Register a format of .tflite files.

    Args:
        name: what users ask for.
        write: `write(source, path, options)`.
        tolerance: how far an artifact may be from its source model.
        options: the options dataclass.
        summary: one line for `zoo formats`.
        guarantees: see `export.core.format.Format`.
        sequences: whether the format supports sequence-to-sequence models.
    """
    register(
        name,
        file="model.tflite",
        write=write,
        load=LiteRtRuntime,
        tolerance=tolerance,
        summary=summary,
        generate=Backend("model.tflite", write, LiteRtGenerator, tolerance.for_sequences()) if sequences else None,
        options=options,
        guarantees=guarantees,
        rules=rules_for(guarantees),
        loops="integer" not in guarantees,
        packages=("tensorflow", "ai_edge_litert", "litert_quantizer"),
    )
