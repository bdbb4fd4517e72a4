"""Clustering: the weights of each kernel share a few values, which compress well (Han et al. 2015, arXiv:1510.00149).

tensorflow-model-optimization moves the values while a tf_keras copy of the model trains. For a child process only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.compression.batch_norm_folding import fold
from export.compression.compat import import_tfmot, sparse_cluster_weights
from export.compression.scale_folding import fold_scales
from export.compression.tf_keras_copy import tf_keras, tf_keras_copy
from export.core.keras_graph import layers_under
from export.core.quiet import quiet
from zoo.common.errors import BadOption, ExportError
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras


def cluster(
    model: _keras.Model, values: int, train: Callable[[Any, int, list[Any]], Any], *, epochs: int
) -> _keras.Model:
    """Return a model whose kernels have few distinct weights; zeros stay zero.

    Channel scales are folded first, because converters would scale the shared values apart channel by channel.

    Args:
        model: a functional model in float32; it is not changed.
        values: maximum number of distinct values in a kernel.
        train: trains a tf_keras model, `train(model, epochs, callbacks)`; see `export.compression.tf_keras_copy.fit`.
        epochs: number of epochs.

    Raises:
        BadOption: `values` is less than 2.
        ExportError: a kernel has more values after training.
    """
    if values < 2:
        raise BadOption(f"A kernel needs at least 2 values. Received: values={values}")
    folded = fold_all_scales(model)
    clustered = _clustered_copy(tf_keras_copy(folded), values)
    train(clustered, epochs, [])
    with quiet():
        stripped = import_tfmot().clustering.keras.strip_clustering(clustered)
    _copy_kernels(stripped, folded)
    _check_values(folded, values)
    return folded


def fold_all_scales(model: _keras.Model) -> _keras.Model:
    """Return a model that computes the same in inference, without batch normalization and channel scales."""
    return fold_scales(fold(model))


def _clustered_copy(copy: Any, values: int) -> Any:
    """Return a tf_keras copy with clustered kernels of convolutions and dense layers."""
    api = import_tfmot().clustering.keras
    # Centroids from k-means++ start near the weights of the kernel, however few of them are large.
    start = api.CentroidInitialization.KMEANS_PLUS_PLUS
    kinds = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)

    def wrapped(layer: Any) -> Any:
        if not isinstance(layer, kinds) or isinstance(layer, tf_keras.layers.DepthwiseConv2D):
            return layer
        sparse = bool((layer.get_weights()[0] == 0).any())
        options = {"preserve_sparsity": True} if sparse else {}
        cluster_weights = sparse_cluster_weights() if sparse else api.cluster_weights
        return cluster_weights(layer, number_of_clusters=values, cluster_centroids_init=start, **options)

    with quiet():
        return tf_keras.models.clone_model(copy, clone_function=wrapped)


def _copy_kernels(stripped: Any, model: Any) -> None:
    """Copy the kernels and biases of a tf_keras model into a Keras model, by layer name."""
    for layer in stripped.layers:
        weights = layer.get_weights()
        if weights and hasattr(layer, "kernel"):
            kernel = np.asarray(layer.kernel)
            bias = [np.asarray(layer.bias)] if layer.use_bias else []
            model.get_layer(layer.name).set_weights([kernel, *bias])


def count_distinct_values(model: _keras.Model) -> dict[str, int]:
    """Return the number of distinct weights of each kernel of a convolution or dense layer, by its path."""
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    kernels = [layer.kernel for layer in layers_under(model) if isinstance(layer, kinds)]
    return {variable.path: len(np.unique(np.asarray(variable))) for variable in kernels}


def _check_values(model: Any, values: int) -> None:
    """Raise ExportError if a kernel has more distinct values than requested."""
    over = {path: count for path, count in count_distinct_values(model).items() if count > values}
    if over:
        raise ExportError(f"Clustering must leave at most {values} values in a kernel. Received: {over}")
