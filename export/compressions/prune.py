"""prune: single weights, a pattern of n in m, or blocks become exactly zero while the network trains on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from export.compression import masks
from export.compression.guarantees import count_zeros
from export.compression.workbench import Workbench, check_training, epochs_of
from export.core.compression import SHARED, SPARSE, Compression, register

if TYPE_CHECKING:
    import keras as _keras

SHARE = 2 / 3  # of the recipe's epochs: in half of that, 80% zeros cost digits_resnet a point


@dataclasses.dataclass(frozen=True)
class Options(masks.Pruning):
    """What is pruned, see `Pruning`, and how training goes on.

    Args:
        epochs: how long, 0 for two thirds of the recipe's.
        rate: share of the recipe's learning rate.
    """

    epochs: int = 0
    rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self.epochs, self.rate)


def plan(network: _keras.Model, options: Options, _bench: Workbench) -> _keras.Model:
    """Return the network; raises BadOption for a pattern that one of its kernels cannot have."""
    masks.kernels(network, options)
    return network


def apply(network: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the network with its zeros."""
    train, epochs = workbench.trainer(options.rate), epochs_of(options, workbench, SHARE)
    return masks.prune(network, options, train, epochs=epochs, steps_per_epoch=workbench.steps_per_epoch)


def guarantees(network: _keras.Model, options: Options) -> dict[str, Any]:
    """Claim the number of zeros in each kernel that was pruned, and the pattern."""
    pruned = {variable.path for variable in masks.kernels(network, options)}
    zeros = {path: count for path, count in count_zeros(network).items() if path in pruned}
    return {"zeros": zeros} | ({"pattern": list(options.keep)} if options.keep else {})


register(
    Compression(
        name="prune",
        options=Options,
        first=("sparsity", "keep"),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=SPARSE,
        then=SHARED,
        summary="prune:0.8[,scope=global][,skip=a+b][,block=1x4] or prune:2:4: weights that are exactly zero",
    )
)
