"""fold: batch normalization goes into the layers before it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from export.compression import batch_norm_folding
from export.compression.workbench import Workbench, check_values
from export.core.compression import ANYWHERE, OTHER, Compression, register

if TYPE_CHECKING:
    import keras as _keras


@dataclasses.dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


def apply(network: _keras.Model, _options: Options, _bench: Workbench) -> _keras.Model:
    """Return the network without batch normalization.

    Raises:
        UnsupportedExport: the network is not one of real values, or has a batch normalization that cannot be folded.
    """
    check_values(network, "Folding")
    return batch_norm_folding.fold(network)


def guarantees(_network: _keras.Model, _options: Options) -> dict[str, Any]:
    """Claim nothing of the weights."""
    return {}


register(
    Compression(
        name="fold",
        options=Options,
        first=(),
        plan=apply,
        apply=apply,
        guarantees=guarantees,
        stage=ANYWHERE,
        then=OTHER,
        summary="fold: batch normalization into the layers before it; no training",
    )
)
