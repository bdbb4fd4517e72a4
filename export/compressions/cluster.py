"""cluster: the weights of each kernel share a few values."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from export.compression import weight_clustering
from export.compression.guarantees import count_zeros
from export.compression.tf_keras_copy import tf_keras_copy
from export.compression.workbench import Workbench, check_classes, check_training, check_values, epochs_of
from export.core.compression import CLOSED, SHARED, Compression, register
from zoo.common.errors import BadOption

if TYPE_CHECKING:
    import keras as _keras

SHARE = 0.1  # of the recipe's epochs


@dataclasses.dataclass(frozen=True)
class Options:
    """How few values.

    Args:
        values: most different weights in a kernel, at least 2.
        epochs: how long, 0 for a tenth of the recipe's.
        rate: share of the recipe's learning rate.
    """

    values: int = 32
    epochs: int = 0
    rate: float = 0.05

    def __post_init__(self) -> None:
        check_training(self.epochs, self.rate)
        if self.values < 2:
            raise BadOption(f"A kernel needs at least 2 values. Received: values={self.values}")


def plan(network: _keras.Model, _options: Options, workbench: Workbench) -> _keras.Model:
    """Return the network without scales of channels; raises UnsupportedExport if tf_keras cannot have it."""
    check_values(network, "Clustering")
    check_classes(network, workbench, "Clustering")
    prepared = weight_clustering.prepared(network)
    tf_keras_copy(prepared)
    return prepared


def apply(network: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the network with few values."""
    train, epochs = workbench.twin_trainer(options.rate), epochs_of(options, workbench, SHARE)
    return weight_clustering.cluster(network, options.values, train, epochs=epochs)


def guarantees(network: _keras.Model, options: Options) -> dict[str, Any]:
    """Claim the most values that a kernel has, and the zeros that stayed, if there are any."""
    zeros = {path: count for path, count in count_zeros(network).items() if count}
    return {"distinct": options.values} | ({"zeros": zeros} if zeros else {})


register(
    Compression(
        name="cluster",
        options=Options,
        first=("values",),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=SHARED,
        then=CLOSED,
        summary="cluster:32: the weights of each kernel share so many values",
        packages=("tensorflow_model_optimization", "tf_keras"),
    )
)
