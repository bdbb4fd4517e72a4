"""Clustering: the weights of each kernel share a few values, which packs well (Han et al. 2015, arXiv:1510.00149).

tensorflow-model-optimization moves the values while the network trains, on a tf_keras twin. For a child process only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.compression.batch_norm_folding import fold
from export.compression.scale_folding import fold_scales
from export.compression.tf_keras_copy import import_tfmot, tf_keras, tf_keras_copy
from export.core.keras_graph import layers_under
from export.core.quiet import quiet
from zoo.common.errors import BadOption, ExportError
from zoo.common.lazy import LazyModule, keras, np

if TYPE_CHECKING:
    import keras as _keras

experimental = LazyModule(
    "tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster", "tensorflow-model-optimization"
)


def cluster(
    network: _keras.Model, values: int, train: Callable[[Any, int, list[Any]], Any], *, epochs: int
) -> _keras.Model:
    """Return a network whose kernels have few different weights, zeros kept as they are.

    Scales of channels are folded first, since converters would scale the shared values apart channel by channel.

    Args:
        network: a functional network in float32; it stays as it is.
        values: how many values a kernel may have at most.
        train: trains a tf_keras model, `train(model, epochs, callbacks)`; see `export.compression.tf_keras_copy.fit`.
        epochs: how long.

    Raises:
        BadOption: `values` is less than 2.
        ExportError: a kernel ended with more values.
    """
    if values < 2:
        raise BadOption(f"A kernel needs at least 2 values. Received: values={values}")
    folded = prepared(network)
    model = _clustering(tf_keras_copy(folded), values)
    train(model, epochs, [])
    with quiet():
        stripped = import_tfmot().clustering.keras.strip_clustering(model)
    _bring_back(stripped, folded)
    _check(folded, values)
    return folded


def prepared(network: _keras.Model) -> _keras.Model:
    """Return a network of the same function whose kernels no scale of channels stands beside."""
    return fold_scales(fold(network))


def _clustering(model: Any, values: int) -> Any:
    """Return the twin with the kernels of convolutions and dense layers clustered."""
    api = import_tfmot().clustering.keras
    # Values spread as k-means++ spreads them start near those of the kernel, however few weights are large.
    start = api.CentroidInitialization.KMEANS_PLUS_PLUS
    kinds = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)

    def wrapped(layer: Any) -> Any:
        if not isinstance(layer, kinds) or isinstance(layer, tf_keras.layers.DepthwiseConv2D):
            return layer
        sparse = bool((layer.get_weights()[0] == 0).any())
        options = {"preserve_sparsity": True} if sparse else {}
        make = experimental.cluster_weights if sparse else api.cluster_weights
        return make(layer, number_of_clusters=values, cluster_centroids_init=start, **options)

    with quiet():
        return tf_keras.models.clone_model(model, clone_function=wrapped)


def _bring_back(model: Any, network: Any) -> None:
    """Copy kernels and biases of a model without clustering into the network, by name and shape."""
    for layer in model.layers:
        weights = layer.get_weights()
        if weights and hasattr(layer, "kernel"):
            kernel = np.asarray(layer.kernel)
            bias = [np.asarray(layer.bias)] if layer.use_bias else []
            network.get_layer(layer.name).set_weights([kernel, *bias])


def distinct(network: _keras.Model) -> dict[str, int]:
    """Return how many different weights each kernel of a convolution or dense layer has, by its path."""
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    found = [layer.kernel for layer in layers_under(network) if isinstance(layer, kinds)]
    return {variable.path: len(np.unique(np.asarray(variable))) for variable in found}


def _check(network: Any, values: int) -> None:
    """Raise ExportError if a kernel has more values than asked for."""
    over = {path: count for path, count in distinct(network).items() if count > values}
    if over:
        raise ExportError(f"Clustering must leave at most {values} values in a kernel. Received: {over}")
