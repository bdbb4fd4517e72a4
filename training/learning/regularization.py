"""Regularization: options of the model, and what is added to it in training."""

from __future__ import annotations

import functools
from typing import Any

import zoo
from training.recipe.config import RegularizeConfig
from training.recipe.limits import ROUTED
from training.recipe.recipe import Recipe
from zoo.build import options_of
from zoo.common import compat
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np
from zoo.specs.registry import models

# Power iterations for the largest singular value of fresh kernels; later kernels change little: one a step is enough.
FIRST_ITERATIONS = 100


def routed_options(recipe: Recipe) -> dict[str, Any]:
    """Return the model options that correspond to the regularizers of a recipe.

    Raises:
        BadOption: the model has no such option.
    """
    given = {key: getattr(recipe.regularize, key) for key in ROUTED if getattr(recipe.regularize, key)}
    for key, value in given.items():
        if key not in options_of(models[recipe.model.name]):
            have = sorted({models[name].spec.family for name in zoo.list_models() if key in options_of(models[name])})
            raise BadOption(
                f"{recipe.model.name} has no {key}. Received: regularize.{key}={value}. Use a model of these families: "
                f"{', '.join(have)}."
            )
    return given


def kernels(model: Any) -> list[Any]:
    """Return the kernels of a model, of dense layers and of convolutions."""
    return [v for v in model.trainable_variables if v.name == "kernel" and len(v.shape) > 1]


def add_norms(model: Any, config: RegularizeConfig) -> None:
    """Add L1 and L2 norms of all kernels to the loss of a model.

    They are attributes of the variables, in float32 for any precision of the step, and not in the configuration of the
    layers, so that a saved model does not include them.
    """
    if config.l1 or config.l2:
        for kernel in kernels(model):
            kernel.regularizer = keras.regularizers.L1L2(config.l1, config.l2)


def with_spatial_dropout(model: Any, recipe: Recipe, stages: list[str]) -> Any:
    """Return a copy of a model that drops whole channels after each stage; the model itself at a rate of 0.

    Args:
        model: a functional model.
        recipe: its `regularize.spatial_dropout` is the rate.
        stages: names of the last layers of the stages.

    Raises:
        BadOption: the model has no stages of feature maps.
    """
    rate = recipe.regularize.spatial_dropout
    if not rate:
        return model
    _check_stages(model, stages, f"regularize.spatial_dropout={rate}")

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        outputs = layer(*arguments, **options)
        if layer.name not in stages:
            return outputs
        return keras.layers.SpatialDropout2D(rate, name=f"{layer.name}_spatial_dropout")(outputs)

    copy = keras.models.clone_model(model, call_function=call)
    take_weights(copy, model)
    return copy


def stage_outputs(recipe: Recipe, shape: tuple[int, ...]) -> list[str]:
    """Return the names of the last layers of the stages of a recipe's model; none if it has no feature maps."""
    if len(shape) != 3:
        return []
    options = {**recipe.model.options, **routed_options(recipe)}
    maps = zoo.features(recipe.model.name, input_shape=shape, **options)
    return [compat.producer(tensor).name for tensor in maps.outputs]


def _check_stages(model: Any, stages: list[str], option: str) -> None:
    known = {layer.name for layer in model.layers}
    if not stages or not set(stages) <= known:
        raise BadOption(
            f"Expected a model with stages of feature maps. Received: {option}, {model.name} without stages. "
            "Use a convolutional model."
        )


def take_weights(model: Any, source: Any) -> None:
    """Copy weights between the layers of two models that have the same name."""
    layers = {layer.name: layer for layer in source.layers}
    for layer in model.layers:
        if layer.name in layers and layer.weights:
            for variable, value in zip(layer.weights, layers[layer.name].weights, strict=True):
                variable.assign(np.asarray(value))


def normalize_kernels(model: Any) -> list[Any]:
    """Divide each kernel of a model by its largest singular value, now and after each update (arXiv:1802.05957).

    A kernel (height, width, in, out) is treated as the matrix (height x width x in, out). As in Keras'
    SpectralNormalization, the kernel itself is divided; here the constraint of its variable divides it, so that layers,
    names and saved files stay unchanged.

    Returns:
        The vectors of the power iterations, to include in checkpoints.
    """
    vectors = []
    for i, kernel in enumerate(kernels(model)):
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
    """Return the class of a Keras constraint, Spectral(vector), that scales a kernel to spectral norm 1."""

    class Spectral(keras.constraints.Constraint):
        """A constraint with one power iteration a call."""

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
