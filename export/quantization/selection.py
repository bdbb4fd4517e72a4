"""Layers to exclude from quantization: those around the activations whose rounding changes the logits most.

To first order the noise that an activation adds to the logits is its own, a twelfth of the squared step for each value,
times the squared gradient of the logits. One backward pass with random signs gives that for all activations at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import Call, calls, readers
from export.quantization.run import run_layers
from zoo.common import compat
from zoo.common.lazy import keras, np, tf

if TYPE_CHECKING:
    import keras as _keras

LEVELS, SEED = 256, 0


def select_layers(model: _keras.Model, examples: Any, count: int) -> tuple[str, ...]:
    """Return the layers that make or read the `count` activations with the most noise, the noisiest first.

    Args:
        model: a functional model without batch normalization.
        examples: its inputs.
        count: number of activations.
    """
    noise = activation_noise(model, examples)
    chosen = sorted(noise, key=noise.__getitem__, reverse=True)[:count]
    by_name = {call.layer.name: call for call in calls(model)}
    return tuple(dict.fromkeys(layer for name in chosen for layer in _around(model, by_name[name])))


def activation_noise(model: _keras.Model, examples: Any) -> dict[str, float]:
    """Return the noise power in the logits that 8 bits cause, for each layer with a quantized output, by its name.

    A layer with an activation after it, which runtimes fuse with it, has none.
    """
    outputs: dict[str, Any] = {}
    with tf.GradientTape() as tape:

        def run(layer: Any, *inputs: Any, **options: Any) -> Any:
            found = layer(*inputs, **options)
            if tf.is_tensor(found) and found.dtype == tf.float32:
                tape.watch(found)
                outputs[layer.name] = found
            return found

        found = keras.tree.flatten(run_layers(model, examples, run))
        total = sum(_projected(values, alone=len(found) == 1) for values in found)
    quantized = [name for name in quantized_outputs(model) if name in outputs]
    gradients = tape.gradient(total, [outputs[name] for name in quantized])
    return {
        name: _noise(outputs[name], gradient)
        for name, gradient in zip(quantized, gradients, strict=True)
        if gradient is not None
    }


def _projected(values: Any, *, alone: bool) -> Any:
    """Return the sum of an output's values with random signs; several outputs are compared in their own scales."""
    signs = np.sign(np.random.default_rng(SEED).normal(size=values.shape)).astype("float32")
    if values.shape[-1] > 1:
        # What all classes have in common changes no prediction.
        signs = signs - signs.mean(axis=-1, keepdims=True)
    spread = 1.0 if alone else tf.stop_gradient(tf.math.reduce_std(values)) + 1e-12
    return tf.reduce_sum(values * signs) / spread


def _noise(values: Any, gradient: Any) -> float:
    """Return the noise power of a tensor; zeros have an exact code."""
    low, high = min(0.0, float(tf.reduce_min(values))), max(0.0, float(tf.reduce_max(values)))
    power = tf.reduce_sum(tf.where(values != 0, gradient**2, 0.0))
    return float(power) * ((high - low) / (LEVELS - 1)) ** 2 / 12


def quantized_outputs(model: _keras.Model) -> Iterator[str]:
    """Yield the layers with quantized outputs: called once, and not fused with an activation after them."""
    read, names = readers(model), [call.layer.name for call in calls(model)]
    for call in calls(model):
        following = read.get(id(call.outputs[0]), [])
        fused = len(following) == 1 and following[0] is not None and _is_activation(following[0].layer)
        if call.inputs and not fused and names.count(call.layer.name) == 1 and None not in following:
            yield call.layer.name


def _is_activation(layer: Any) -> bool:
    return isinstance(layer, (keras.layers.Activation, keras.layers.ReLU, keras.layers.Dropout))


def _around(model: _keras.Model, call: Call) -> Iterator[str]:
    """Yield a layer, the one before it if they are fused, and the layers that read its output."""
    yield call.layer.name
    if _is_activation(call.layer):
        yield compat.producer(call.inputs[0]).name
    for reader in readers(model)[id(call.outputs[0])]:
        if reader is not None:
            yield reader.layer.name
