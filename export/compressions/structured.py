"""structured: whole branches and channels go, and the network is rebuilt smaller and trained on."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from export.compression.channels import Shrinking, shrink, slim
from export.compression.guarantees import masks_of
from export.compression.workbench import Workbench, check_training, check_values, epochs_of
from export.core.compression import FEWER, Compression, register
from zoo.common.errors import BadOption

if TYPE_CHECKING:
    import keras as _keras

SHARE = 2 / 3  # of the recipe's epochs
MULTIPLES = (16, 8, 4, 2)  # kernels for vectors of 16 gain nothing from fewer channels than a multiple of it


@dataclasses.dataclass(frozen=True)
class Options(Shrinking):
    """How small, see `Shrinking`, and how training goes on.

    Args:
        multiple: as in `Shrinking`; 0 for the largest of 16, 8, 4, 2 and 1 with which the size can be reached.
        branches: as in `Shrinking`. On digits_resnet half the multiply-adds take 0.59 of the time in ONNX Runtime
            and 0.52 in LiteRT so; 0.72 and 0.49 without, where the parameters fall to a quarter.
        epochs: how long, 0 for two thirds of the recipe's.
        rate: share of the recipe's learning rate.
    """

    multiple: int = 0
    branches: bool = True
    epochs: int = 0
    rate: float = 0.5

    def __post_init__(self) -> None:
        self.shrinking(self.multiple or 1)
        check_training(self.epochs, self.rate)

    def shrinking(self, multiple: int) -> Shrinking:
        """Return how small, with channels in multiples of this."""
        return Shrinking(self.multiply_adds, self.by, multiple, self.branches)


def plan(network: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the smaller network, untrained; raises BadOption for a size that cannot be reached."""
    check_values(network, "Structured pruning")
    return shrink(network, _settled(network, options, workbench), _judged(options, workbench))


def apply(network: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the smaller network."""
    shrinking, epochs = _settled(network, options, workbench), epochs_of(options, workbench, SHARE)
    return slim(
        network, shrinking, workbench.trainer(options.rate), epochs=epochs, examples=_judged(options, workbench)
    )


def _judged(options: Options, workbench: Workbench) -> Any:
    """Return what branches are judged on."""
    return workbench.calibration if options.branches else None


def _settled(network: Any, options: Options, workbench: Workbench) -> Shrinking:
    """Return how small, with channels in the largest multiple that reaches it."""
    if options.multiple:
        return options.shrinking(options.multiple)
    for multiple in MULTIPLES:
        with contextlib.suppress(BadOption):
            shrink(network, options.shrinking(multiple), _judged(options, workbench))
            return options.shrinking(multiple)
    return options.shrinking(1)


def guarantees(network: _keras.Model, _options: Options) -> dict[str, Any]:
    """Claim the shape of each kernel."""
    return {"kernels": {path: list(mask.shape) for path, mask in masks_of(network).items()}}


register(
    Compression(
        name="structured",
        options=Options,
        first=("multiply_adds",),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=FEWER,
        then=FEWER,
        summary="structured:0.5[,branches=false][,by=scale]: branches and channels go until so many multiply-adds stay",
    )
)
