"""What a network knows before its last dense layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.common.lazy import keras

if TYPE_CHECKING:
    import keras as _keras


def features_of(model: _keras.Model) -> _keras.Model | None:
    """Return a network from raw values or ids to what its last dense layer takes, None where there is no such.

    Args:
        model: as formats see it: a network, or one with its preprocessing in front.
    """
    inner = model.layers[-1]
    nested = isinstance(inner, keras.Model)
    network = inner if nested else model
    last = _last_dense(network)
    if last is None:
        return None
    trunk = keras.Model(network.input, last.input)
    if not trunk.trainable_weights:
        # A single layer has no features but its input.
        return None
    if not nested:
        return trunk
    return keras.Model(model.input, trunk(model.layers[-2].output))


def _last_dense(network: _keras.Model) -> Any:
    """Return the dense layer that gives the only output of a network, behind an activation maybe."""
    if not hasattr(network.output, "shape"):
        return None
    layer = network.output._keras_history.operation
    if isinstance(layer, (keras.layers.Activation, keras.layers.Softmax)):
        layer = layer.input._keras_history.operation
    return layer if isinstance(layer, keras.layers.Dense) else None
