"""fold: fold batch normalization into the layers before it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from export.compression import batch_norm_folding
from export.compression.workbench import check_float_input
from export.core.compression import ANY_STAGE, NEW_MODEL, Compression, Workbench, register

if TYPE_CHECKING:
    import keras as _keras


@dataclasses.dataclass(frozen=True)
class Options:
    """Folding has no options."""


def apply(model: _keras.Model, _options: Options, _workbench: Workbench) -> _keras.Model:
    """Return the model without batch normalization.

    Raises:
        UnsupportedExport: the input is not floating point, or a batch normalization cannot be folded.
    """
    check_float_input(model, "Folding")
    return batch_norm_folding.fold(model)


def guarantees(_model: _keras.Model, _options: Options) -> dict[str, Any]:
    """Return no guarantees."""
    return {}


register(
    Compression(
        name="fold",
        options=Options,
        positional=(),
        plan=apply,
        apply=apply,
        guarantees=guarantees,
        stage=ANY_STAGE,
        next_stage=NEW_MODEL,
        summary="fold: fold batch normalization into the layers before it, without training",
    )
)
