"""What keeps a network from learning its examples by heart: options it has, and what is put around it in training."""

from __future__ import annotations

import functools
from typing import Any

import zoo
from training.recipe.config import RegularizeConfig
from training.recipe.recipe import Recipe
from zoo.build import options_of
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np
from zoo.specs.registry import models

# Keys of the configuration that are options of networks.
ROUTED = ("dropout", "drop_connect", "drop_path")
# Iterations that find the largest singular value of fresh kernels; later ones change little, and one a step is enough.
FIRST_ITERATIONS = 100


def routed_options(recipe: Recipe) -> dict[str, Any]:
    """Return the options of the network that the regularizers of a recipe stand for.

    Raises:
        BadOption: the network has no such option, or the recipe gives it twice.
    """
    given = {key: getattr(recipe.regularize, key) for key in ROUTED if getattr(recipe.regularize, key)}
    for key, value in given.items():
        if key in recipe.model.options:
            raise BadOption(
                f"{key} is given twice. Received: regularize.{key}={value}, "
                f"model.options.{key}={recipe.model.options[key]}. Leave one out."
            )
        if key not in options_of(models[recipe.model.name]):
            have = sorted({models[name].spec.family for name in zoo.names() if key in options_of(models[name])})
            raise BadOption(
                f"{recipe.model.name} has no {key}. Received: regularize.{key}={value}. Networks of these families "
                f"have it: {', '.join(have)}."
            )
    return given


def kernels(network: Any) -> list[Any]:
    """Return the kernels of a network, of dense layers and of convolutions."""
    return [v for v in network.trainable_variables if v.name == "kernel" and len(v.shape) > 1]


def add_norms(network: Any, config: RegularizeConfig) -> None:
    """Add L1 and L2 of all kernels to the loss of a network.

    They hang on the variables, in float32 whatever the precision of the step, and not in the configuration of the
    layers, so that what is saved knows nothing of them.
    """
    if config.l1 or config.l2:
        for kernel in kernels(network):
            kernel.regularizer = keras.regularizers.L1L2(config.l1, config.l2)


def with_spatial_dropout(network: Any, recipe: Recipe, levels: list[str]) -> Any:
    """Return a copy of a network that drops whole channels behind each stage; the network itself if none are.

    Args:
        network: a functional network.
        recipe: whose `regularize.spatial_dropout` is the share.
        levels: names of the last layers of the stages.

    Raises:
        BadOption: the network has no stages of feature maps.
    """
    rate = recipe.regularize.spatial_dropout
    if not rate:
        return network
    _check_levels(network, levels, f"regularize.spatial_dropout={rate}")

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        outputs = layer(*arguments, **options)
        if layer.name not in levels:
            return outputs
        return keras.layers.SpatialDropout2D(rate, name=f"{layer.name}_spatial_dropout")(outputs)

    copy = keras.models.clone_model(network, call_function=call)
    take_weights(copy, network)
    return copy


def level_names(recipe: Recipe, shape: tuple[int, ...]) -> list[str]:
    """Return the names of the last layers of the stages of a recipe's network; none if it has no feature maps."""
    if len(shape) != 3:
        return []
    options = {**recipe.model.options, **routed_options(recipe)}
    maps = zoo.features(recipe.model.name, input_shape=shape, **options)
    return [tensor._keras_history.operation.name for tensor in maps.outputs]


def _check_levels(network: Any, levels: list[str], what: str) -> None:
    known = {layer.name for layer in network.layers}
    if not levels or not set(levels) <= known:
        raise BadOption(f"Stages of feature maps are needed. Received: {what}, {network.name}, which has none.")


def take_weights(network: Any, source: Any) -> None:
    """Copy the weights of the layers that two networks share by name."""
    theirs = {layer.name: layer for layer in source.layers}
    for layer in network.layers:
        if layer.name in theirs and layer.weights:
            for variable, value in zip(layer.weights, theirs[layer.name].weights, strict=True):
                variable.assign(np.asarray(value))


def normalize_kernels(network: Any) -> list[Any]:
    """Divide each kernel of a network by its largest singular value, now and after each update (arXiv:1802.05957).

    A kernel (height, width, in, out) counts as the matrix (height x width x in, out). As in Keras'
    SpectralNormalization, the kernel itself is what is divided; here it is the constraint of its variable that does it,
    so that layers, names and what is saved stay as they are.

    Returns:
        The vectors of the power iterations, which belong into a checkpoint.
    """
    vectors = []
    for i, kernel in enumerate(kernels(network)):
        start = np.random.default_rng(i).standard_normal((1, kernel.shape[-1]))
        vector = keras.Variable(start, dtype="float32", trainable=False, aggregation="mean", name=f"spectral_vector{i}")
        kernel.constraint = spectral()(vector)
        for _ in range(FIRST_ITERATIONS):
            normalized = kernel.constraint(kernel)
        kernel.assign(normalized)
        vectors.append(vector)
    return vectors


@functools.cache
def spectral() -> Any:
    """Return the class of a Keras constraint, Spectral(vector): a kernel of spectral norm 1."""

    class Spectral(keras.constraints.Constraint):
        """One power iteration a call."""

        def __init__(self, vector: Any) -> None:
            self._vector = vector

        def __call__(self, w: Any) -> Any:
            w = keras.ops.convert_to_tensor(w)
            matrix = keras.ops.reshape(keras.ops.cast(w, "float32"), (-1, w.shape[-1]))
            left = _unit(keras.ops.matmul(self._vector.value, keras.ops.transpose(matrix)))
            product = keras.ops.matmul(left, matrix)
            self._vector.assign(_unit(product))
            norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(product)))
            return w / keras.ops.cast(keras.ops.maximum(norm, 1e-12), w.dtype)

    return Spectral


def _unit(vector: Any) -> Any:
    return vector * keras.ops.rsqrt(keras.ops.maximum(keras.ops.sum(keras.ops.square(vector)), 1e-24))
