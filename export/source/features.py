"""The features of a model: the input of its last dense layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.common.compat import producer
from zoo.common.lazy import keras

if TYPE_CHECKING:
    import keras as _keras


def feature_model(model: _keras.Model, inner: _keras.Model) -> _keras.Model | None:
    """Return a model from raw values or ids to the input of the last dense layer, None if there is no such layer.

    Args:
        model: the model with its preprocessing in front, or `inner`.
        inner: the model.
    """
    last = _last_dense(inner)
    if last is None:
        return None
    trunk = keras.Model(inner.input, last.input)
    if not trunk.trainable_weights:
        # The features of a single layer are its input.
        return None
    return trunk if model is inner else keras.Model(model.input, trunk(model.layers[-2].output))


def _last_dense(model: _keras.Model) -> Any:
    """Return the dense layer that computes the only output of a model, possibly before an activation."""
    if not hasattr(model.output, "shape"):
        return None
    layer = producer(model.output)
    if isinstance(layer, (keras.layers.Activation, keras.layers.Softmax)):
        layer = producer(layer.input)
    return layer if isinstance(layer, keras.layers.Dense) else None
