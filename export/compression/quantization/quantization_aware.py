"""Quantization-aware training (QAT): int8 arithmetic is simulated while the model trains.

Jacob et al. 2017, arXiv:1712.05877, by tensorflow-model-optimization on a tf_keras copy without batch normalization.
For a child process only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.compression.batch_norm_folding import fold
from export.compression.compat import frozen_function, import_tfmot, quantize_registry, set_constraint
from export.compression.tf_keras_copy import tf_keras, tf_keras_copy
from export.core.quiet import quiet
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import np, tf

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

# Layers that keep the range of their input; tfmot's default configuration leaves float operators around them.
RANGE_PRESERVING = ("AveragePooling2D", "MaxPooling2D")
ACTIVATIONS = ("linear", "relu", "softmax")


def check_support(model: _keras.Model) -> None:
    """Raise UnsupportedExport for a model with a layer that QAT does not support; the message names the layer."""
    _check_layers(tf_keras_copy(fold(model), strict=True))


def quantize_aware(
    model: _keras.Model, calibration: _np.ndarray, train: Callable[[Any, int, list[Any]], Any], *, epochs: int
) -> Any:
    """Return a tf_keras model with simulated int8, after quantization-aware training.

    Args:
        model: a trained functional model in float32; it is not changed.
        calibration: inputs of the model (n, *shape) for the initial ranges.
        train: trains a tf_keras model, `train(model, epochs, callbacks)`; see `export.compression.tf_keras_copy.fit`.
        epochs: number of epochs.

    Returns:
        The tf_keras model. Weights that are zero in `model` are zero in it.

    Raises:
        UnsupportedExport: before training, if a layer cannot be quantized; the message names it.
    """
    float_copy = tf_keras_copy(fold(model), strict=True)
    _check_layers(float_copy)
    quantized = _quantized_copy(float_copy)
    _set_ranges(quantized, float_copy, calibration)
    _freeze_zeros(quantized)
    train(quantized, epochs, [])
    return quantized


def _check_layers(copy: Any) -> None:
    """Raise UnsupportedExport for the first layer that tensorflow-model-optimization cannot quantize."""
    registry = quantize_registry()
    for layer in copy.layers:
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        supported = isinstance(layer, tf_keras.layers.InputLayer) or registry.supports(layer)
        if activation not in ACTIVATIONS or not supported:
            raise UnsupportedExport(
                "Quantization-aware training does not support this layer. "
                f"Received: layer={layer.name}, type={type(layer).__name__}, activation={activation}. "
                "Quantize after training, or use other layers."
            )


def _quantized_copy(float_copy: Any) -> Any:
    """Return a copy of a tf_keras model with simulated int8."""
    api = import_tfmot().quantization.keras
    config_class = _no_quantization()

    def annotate(layer: Any) -> Any:
        if isinstance(layer, tf_keras.layers.InputLayer):
            return layer
        config = config_class() if type(layer).__name__ in RANGE_PRESERVING else None
        return api.quantize_annotate_layer(layer, config)

    with api.quantize_scope({config_class.__name__: config_class}), quiet():
        return api.quantize_apply(tf_keras.models.clone_model(float_copy, clone_function=annotate))


@functools.cache
def _no_quantization() -> Any:
    """Return the class of a tfmot configuration that quantizes nothing."""

    class NoQuantization(import_tfmot().quantization.keras.QuantizeConfig):
        """Leaves a layer unchanged."""

        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
            return None

        def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
            return None

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return []

        def get_config(self) -> dict[str, Any]:
            return {}

    return NoQuantization


def _set_ranges(quantized: Any, float_copy: Any, calibration: Any) -> None:
    """Set the range of every activation to its range in floating point; tfmot starts with -6 to 6."""
    layers = [layer for layer in float_copy.layers if not isinstance(layer, tf_keras.layers.InputLayer)]
    outputs = tf_keras.Model(float_copy.inputs, [layer.output for layer in layers]).predict(calibration, verbose=0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    ranges = {f"quant_{layer.name}": _range(x) for layer, x in zip(layers, outputs, strict=True)}
    for layer in quantized.layers:
        bounds = _range(calibration) if type(layer).__name__ == "QuantizeLayer" else ranges.get(layer.name)
        for variable in layer.variables if bounds else ():
            name = variable.name.rpartition("/")[2].partition(":")[0]
            if name.endswith(("_min", "_max")) and not name.startswith(("kernel", "depthwise")):
                variable.assign(bounds[name.endswith("_max")])
    # A call in training mode sets the ranges of the kernels.
    quantized(calibration[:1], training=True)


def _range(values: Any) -> tuple[float, float]:
    """Return the minimum and the maximum; int8 needs 0 between them."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return (low, high) if high > low else (0.0, 1e-6)


def _freeze_zeros(quantized: Any) -> None:
    """Hold the zeros of every kernel by its constraint, which tf_keras applies after each update."""
    for variable in quantized.trainable_variables:
        mask = (variable.numpy() != 0).astype("float32")
        if "kernel" in variable.name and not mask.all():
            set_constraint(variable, functools.partial(tf.multiply, tf.constant(mask)))


def to_int8(quantized: Any, serve: Callable[[Any, Any], Any], shape: tuple[int, ...], names: tuple[str, str]) -> bytes:
    """Convert a model with simulated int8 to a .tflite with int8 input, output and tensors.

    Args:
        quantized: the result of `quantize_aware`.
        serve: `serve(model, inputs)` returns the outputs; preprocessing in it must simulate int8 too.
        shape: shape of the inputs, with the batch.
        names: names of input and output.
    """
    spec = tf.TensorSpec(shape, tf.float32, name=names[0])

    @tf.function(autograph=False, input_signature=[spec])
    def function(inputs: Any) -> Any:
        return {names[1]: serve(quantized, inputs)}

    frozen = frozen_function(function.get_concrete_function())
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()


def predict(model: Any, inputs: Any) -> Any:
    """Return the outputs of a model in inference, without preprocessing."""
    return model(inputs, training=False)


def kernels_by_layer(quantized: Any) -> dict[str, _np.ndarray]:
    """Return the kernels of a model with simulated int8 by the name of their layer in the Keras model."""
    kernels = [variable for variable in quantized.trainable_variables if "kernel" in variable.name]
    return {v.name.partition("/")[0].removeprefix("quant_"): np.asarray(v) for v in kernels}


def copy_weights_back(quantized: Any, model: _keras.Model) -> None:
    """Copy kernels and biases of a model with simulated int8 into the Keras model, by layer name."""
    values = {}
    for variable in quantized.trainable_variables:
        layer, _, name = variable.name.partition(":")[0].removeprefix("quant_").partition("/")
        values[layer, name.removeprefix("depthwise_")] = variable.numpy()
    for layer in model.layers:
        if layer.trainable_weights:
            layer.set_weights([values[layer.name, variable.name] for variable in layer.weights])
