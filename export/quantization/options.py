"""Options of the formats with int8 weights and calibrated activations, the same in every runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from export.core.options import REMEDY, Options
from zoo.common.errors import BadOption
from zoo.specs.tasks import task_of

NEAREST, LEARNED = "nearest", "learned"
MINMAX, BEST = "minmax", "best"
EXCLUDED = 6  # activations to exclude if int8 loses too much


@dataclasses.dataclass(frozen=True)
class PreparationOptions(Options):
    """How a float model is prepared for int8 weights; each default is the fastest.

    Args:
        rounding: "nearest", or "learned" on the calibration data for the least error of each layer's outputs, with
            corrected biases; see `export.quantization.rounding`.
        equalize: rescale channels of small values first; see `export.quantization.equalization`.
        per_channel: a scale for each output channel of a kernel; else one for the whole kernel, as some NPUs need.
    """

    rounding: Literal["nearest", "learned"] = dataclasses.field(default=NEAREST, metadata={REMEDY: LEARNED})
    equalize: bool = dataclasses.field(default=False, metadata={REMEDY: True})
    per_channel: bool = True
    # After the fields: refusals name the options in this order, that of their gain.
    calibration: ClassVar[str] = MINMAX
    exclude: ClassVar[int | tuple[str, ...]] = 0

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise BadOption for options that do not apply together."""
        super().check(metadata)
        if self.rounding == LEARNED and getattr(self, "reduce_range", False):
            raise BadOption(
                "rounding=learned needs all 8 bits. Received: rounding=learned, reduce_range=true. Leave one out."
            )
        if self.rounding == LEARNED and not self.per_channel:
            raise BadOption(
                "rounding=learned needs a scale for each channel. Received: rounding=learned, per_channel=false. "
                "Leave one out."
            )


@dataclasses.dataclass(frozen=True)
class QuantizationOptions(PreparationOptions):
    """How a float model gets int8 weights and activations.

    Args:
        calibration: how the range of an activation is chosen, see `export.quantization.ranges`; "best" for the method
            with the largest signal-to-noise ratio of the logits on held-back calibration examples.
        exclude: layers that stay float32: their names with the wildcards * and ?, joined by +, such as "head+block7_*";
            or a number of activations, those whose rounding changes the logits most, with the layers around them, see
            `export.quantization.selection`.
    """

    calibration: Literal["minmax", "mse", "percentile", "entropy", "best"] = dataclasses.field(
        default=MINMAX, metadata={REMEDY: BEST}
    )
    exclude: int | tuple[str, ...] = dataclasses.field(default=0, metadata={REMEDY: EXCLUDED})

    def __post_init__(self) -> None:
        if isinstance(self.exclude, int) and self.exclude < 0:
            raise BadOption(f"exclude must be 0 or more activations. Received: exclude={self.exclude}")
        super().__post_init__()

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise BadOption for options that do not apply to the model, or not together."""
        super().check(metadata)
        if (self.calibration != MINMAX or self.exclude) and task_of(metadata["task"]).generates:
            raise BadOption(
                "calibration and exclude do not apply to sequence-to-sequence models. "
                f"Received: calibration={self.calibration}, exclude={self.exclude}. Leave them out."
            )
