"""cluster: the weights of each kernel share a few values."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from export.compression import weight_clustering
from export.compression.guarantees import count_zeros
from export.compression.tf_keras_copy import tf_keras_copy
from export.compression.workbench import check_classifier, check_float_input, check_training, epochs_of
from export.core.compression import CLUSTERED, FINAL, Compression, Workbench, register
from zoo.common.errors import BadOption

if TYPE_CHECKING:
    import keras as _keras

EPOCHS_FRACTION = 0.1  # of the recipe's epochs


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of clustering.

    Args:
        values: maximum number of distinct weights in a kernel, at least 2.
        epochs: number of epochs, 0 for a tenth of the recipe's.
        rate: fraction of the recipe's learning rate.
    """

    values: int = 32
    epochs: int = 0
    rate: float = 0.05

    def __post_init__(self) -> None:
        check_training(self.epochs, self.rate)
        if self.values < 2:
            raise BadOption(f"A kernel needs at least 2 values. Received: values={self.values}")


def plan(model: _keras.Model, _options: Options, workbench: Workbench) -> _keras.Model:
    """Return the model without channel scales; raises UnsupportedExport if tf_keras cannot copy it."""
    check_float_input(model, "Clustering")
    check_classifier(model, workbench, "Clustering")
    folded = weight_clustering.fold_all_scales(model)
    tf_keras_copy(folded)
    return folded


def apply(model: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the model with clustered kernels."""
    train, epochs = workbench.tf_keras_trainer(options.rate), epochs_of(options, workbench, EPOCHS_FRACTION)
    return weight_clustering.cluster(model, options.values, train, epochs=epochs)


def guarantees(model: _keras.Model, options: Options) -> dict[str, Any]:
    """Return the maximum number of distinct values in a kernel, and the zeros, if there are any."""
    zeros = {path: count for path, count in count_zeros(model).items() if count}
    return {"distinct": options.values} | ({"zeros": zeros} if zeros else {})


register(
    Compression(
        name="cluster",
        options=Options,
        positional=("values",),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=CLUSTERED,
        next_stage=FINAL,
        summary="cluster:32: at most 32 distinct weights in each kernel, which compress well",
        packages=("tensorflow_model_optimization", "tf_keras"),
    )
)
