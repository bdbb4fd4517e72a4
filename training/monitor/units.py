"""Count inactive units of a model: dead ReLUs, and saturated sigmoids and hyperbolic tangents."""

from __future__ import annotations

from typing import Any

from zoo.common import compat
from zoo.common.lazy import keras, tf

# Measured activations by the name of their function: None for those that can die, else the two ends of the range.
ENDS: dict[str, tuple[float, float] | None] = {
    "relu": None,
    "relu6": None,
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
}
# Fraction of the range at either end in which a value is saturated; a sigmoid's slope is below 0.05 there.
MARGIN = 0.05


class Units:
    """The units of a functional model with an activation that can die or saturate."""

    def __init__(self, model: Any, strategy: Any) -> None:
        hidden = [layer for layer in model.layers if _is_hidden(layer, model)]
        layers = {layer.name: layer for layer in hidden if _activation(layer) in ENDS}
        self._ends = {name: ENDS[_activation(layer)] for name, layer in layers.items()}
        self._strategy = strategy
        # A model of the same layers with their activations as outputs.
        outputs = {name: layer.output for name, layer in layers.items()}
        self._activations = keras.Model(model.inputs, outputs) if outputs else None
        self._compute = tf.function(self._idle, reduce_retracing=True, autograph=False)

    def measure(self, batch: Any) -> dict[str, dict[str, float]]:
        """Return the inactive units for a batch.

        Args:
            batch: (x, y) or more, of one replica or of all.

        Returns:
            dead: by layer, the fraction of units (of a map: channels) that are 0 for the whole batch.
            saturated: by layer, the fraction of values within 5% of the range at either end.
        """
        if self._activations is None:
            return {"dead": {}, "saturated": {}}
        inputs = tf.nest.map_structure(lambda t: self._strategy.experimental_local_results(t)[0], batch[0])
        idle = {name: values.numpy() for name, values in self._compute(inputs).items()}
        dead = {name: float(values.mean()) for name, values in idle.items() if self._ends[name] is None}
        saturated = {name: float(values) for name, values in idle.items() if self._ends[name]}
        return {"dead": _rounded(dead), "saturated": _rounded(saturated)}

    def _idle(self, inputs: Any) -> dict[str, Any]:
        """Return inactive units layer by layer; compiled, so that each map is freed as soon as it is measured."""
        return {name: _idle(values, self._ends[name]) for name, values in self._outputs(inputs).items()}

    def _outputs(self, inputs: Any) -> dict[str, Any]:
        return self._activations(inputs, training=False)


def _idle(values: Any, ends: tuple[float, float] | None) -> Any:
    """Return which units (along the last axis) are always 0, or the fraction of values at the ends."""
    values = tf.cast(values, tf.float32)
    if ends is None:
        silent = tf.reduce_max(values, axis=list(range(len(values.shape) - 1))) <= 0
        return tf.cast(silent, tf.float32)
    margin = MARGIN * (ends[1] - ends[0])
    return tf.reduce_mean(tf.cast((values < ends[0] + margin) | (values > ends[1] - margin), tf.float32))


def _activation(layer: Any) -> str:
    """Return the name of a layer's activation, "" for none."""
    if isinstance(layer, keras.layers.ReLU):
        return "relu" if not layer.negative_slope else ""
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _is_hidden(layer: Any, model: Any) -> bool:
    """Return whether a layer is inside the model: outputs may saturate."""
    return layer.name not in model.output_names and len(compat.inbound_nodes(layer)) == 1


def _rounded(fractions: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in fractions.items()}
