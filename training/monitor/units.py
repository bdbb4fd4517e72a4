"""Which units of a network do nothing: ReLUs that stay at 0, sigmoids and hyperbolic tangents at their ends."""

from __future__ import annotations

from typing import Any

from zoo.common.lazy import keras, tf

# Activations that are looked at, by the name of their function: "dead" where they can stay at 0, else their two ends.
ENDS: dict[str, tuple[float, float] | None] = {
    "relu": None,
    "relu6": None,
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
}
# Share of the range at either end where a value counts as saturated; a sigmoid's slope is below 0.05 there.
MARGIN = 0.05


class Units:
    """The units of a functional network whose activation can die or saturate."""

    def __init__(self, model: Any, strategy: Any) -> None:
        found = {layer.name: layer for layer in model.layers if _activation(layer) in ENDS and _is_hidden(layer, model)}
        self._ends = {name: ENDS[_activation(layer)] for name, layer in found.items()}
        self._strategy = strategy
        # The same layers, and as outputs what they give.
        outputs = {name: layer.output for name, layer in found.items()}
        self._network = keras.Model(model.inputs, outputs) if outputs else None
        self._look = tf.function(self._idle, reduce_retracing=True, autograph=False)

    def measure(self, batch: Any) -> dict[str, dict[str, float]]:
        """Return what a batch leaves idle.

        Args:
            batch: (x, y) or more, of one replica or of all.

        Returns:
            dead: by layer, the share of units (of a map: channels) that are 0 for the whole batch.
            saturated: by layer, the share of values that lie within 5% of the range at either end.
        """
        if self._network is None:
            return {"dead": {}, "saturated": {}}
        inputs = tf.nest.map_structure(lambda t: self._strategy.experimental_local_results(t)[0], batch[0])
        idle = {name: values.numpy() for name, values in self._look(inputs).items()}
        dead = {name: float(values.mean()) for name, values in idle.items() if self._ends[name] is None}
        saturated = {name: float(values) for name, values in idle.items() if self._ends[name]}
        return {"dead": _rounded(dead), "saturated": _rounded(saturated)}

    def _idle(self, inputs: Any) -> dict[str, Any]:
        """Return what is idle, layer by layer; compiled, so that no map is held longer than it is needed."""
        return {name: _idle(values, self._ends[name]) for name, values in self._outputs(inputs).items()}

    def _outputs(self, inputs: Any) -> dict[str, Any]:
        return self._network(inputs, training=False)


def _idle(values: Any, ends: tuple[float, float] | None) -> Any:
    """Return which units (along the last axis) are 0 throughout, or the share of values at the ends."""
    values = tf.cast(values, tf.float32)
    if ends is None:
        silent = tf.reduce_max(values, axis=list(range(len(values.shape) - 1))) <= 0
        return tf.cast(silent, tf.float32)
    margin = MARGIN * (ends[1] - ends[0])
    return tf.reduce_mean(tf.cast((values < ends[0] + margin) | (values > ends[1] - margin), tf.float32))


def _activation(layer: Any) -> str:
    """Return the name of a layer's activation, "" where it has none."""
    if isinstance(layer, keras.layers.ReLU):
        return "relu" if not layer.negative_slope else ""
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _is_hidden(layer: Any, model: Any) -> bool:
    """Tell whether a layer is inside the network: outputs are meant to come to an end."""
    return layer.name not in model.output_names and hasattr(layer, "_inbound_nodes") and len(layer._inbound_nodes) == 1


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 4) for name, share in shares.items()}
