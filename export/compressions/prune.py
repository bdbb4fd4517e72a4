"""prune: set single weights, an n:m pattern, or blocks to exactly zero during fine-tuning."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from export.compression import masks
from export.compression.guarantees import count_zeros
from export.compression.pruning import Pruning, prunable_kernels
from export.compression.workbench import check_training, epochs_of
from export.core.compression import CLUSTERED, SPARSE, Compression, Workbench, register

if TYPE_CHECKING:
    import keras as _keras

EPOCHS_FRACTION = 2 / 3  # of the recipe's epochs: with half of that, a sparsity of 80% costs digits_resnet a point


@dataclasses.dataclass(frozen=True)
class Options(Pruning):
    """The options of `Pruning`, and fine-tuning.

    Args:
        epochs: number of epochs, 0 for two thirds of the recipe's.
        rate: fraction of the recipe's learning rate.
    """

    epochs: int = 0
    rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self.epochs, self.rate)


def plan(model: _keras.Model, options: Options, _workbench: Workbench) -> _keras.Model:
    """Return the model; raises BadOption for a pattern that does not fit its kernels."""
    prunable_kernels(model, options)
    return model


def apply(model: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the pruned model."""
    train, epochs = workbench.trainer(options.rate), epochs_of(options, workbench, EPOCHS_FRACTION)
    return masks.prune(model, options, train, epochs=epochs, steps_per_epoch=workbench.steps_per_epoch)


def guarantees(model: _keras.Model, options: Options) -> dict[str, Any]:
    """Return the number of zeros in each pruned kernel, and the pattern."""
    pruned = {variable.path for variable in prunable_kernels(model, options)}
    zeros = {path: count for path, count in count_zeros(model).items() if path in pruned}
    return {"zeros": zeros} | ({"pattern": list(options.pattern)} if options.pattern else {})


register(
    Compression(
        name="prune",
        options=Options,
        positional=("sparsity", "pattern"),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=SPARSE,
        next_stage=CLUSTERED,
        summary="prune:0.8[,scope=global][,skip=a+b][,block=1x4] or prune:2:4: exact zeros by magnitude",
    )
)
