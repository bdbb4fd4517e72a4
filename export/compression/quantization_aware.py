"""Quantization-aware training: int8 arithmetic is imitated while the network learns to live with it.

Jacob et al. 2017, arXiv:1712.05877, as tensorflow-model-optimization does it, on a tf_keras twin without batch
normalization. For a child process only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.compression.batch_norm_folding import fold
from export.compression.tf_keras_copy import import_tfmot, tf_keras, tf_keras_copy
from export.core.quiet import quiet
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule, np, tf

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

registry = LazyModule(
    "tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_registry",
    "tensorflow-model-optimization",
)
freezing = LazyModule("tensorflow.python.framework.convert_to_constants")
# What keeps the range of its input; tfmot's own way leaves float operators around it.
PASSING = ("AveragePooling2D", "MaxPooling2D")
ACTIVATIONS = ("linear", "relu", "softmax")


def check(network: _keras.Model) -> None:
    """Raise UnsupportedExport, naming the layer, if a network cannot be trained in imitated int8."""
    _check_layers(tf_keras_copy(fold(network), strict=True))


def quantize_aware(
    network: _keras.Model, calibration: _np.ndarray, train: Callable[[Any, int, list[Any]], Any], *, epochs: int
) -> Any:
    """Return a tf_keras model that imitates int8, trained.

    Args:
        network: a trained functional network in float32; it stays as it is.
        calibration: inputs of the network (n, *shape) that set the first ranges.
        train: trains a tf_keras model, `train(model, epochs, callbacks)`; see `export.compression.tf_keras_copy.fit`.
        epochs: how long.

    Returns:
        The model. Weights that are zero in `network` are zero in it.

    Raises:
        UnsupportedExport: before training, names the layer that cannot be quantized.
    """
    floating = tf_keras_copy(fold(network), strict=True)
    _check_layers(floating)
    model = _imitating(floating)
    _set_ranges(model, floating, calibration)
    _hold_zeros(model)
    train(model, epochs, [])
    return model


def _check_layers(model: Any) -> None:
    """Raise UnsupportedExport for the first layer that tensorflow-model-optimization cannot quantize."""
    import_tfmot()
    known = registry.Default8BitQuantizeRegistry()
    for layer in model.layers:
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        supported = isinstance(layer, tf_keras.layers.InputLayer) or known.supports(layer)
        if activation not in ACTIVATIONS or not supported:
            raise UnsupportedExport(
                "Quantization-aware training has no int8 imitation of it. "
                f"Received: layer={layer.name}, type={type(layer).__name__}, activation={activation}. "
                "Quantize after training, or use other layers."
            )


def _imitating(floating: Any) -> Any:
    """Return the twin with imitated int8 in it."""
    api = import_tfmot().quantization.keras
    nothing = _no_quantization()

    def annotate(layer: Any) -> Any:
        if isinstance(layer, tf_keras.layers.InputLayer):
            return layer
        config = nothing() if type(layer).__name__ in PASSING else None
        return api.quantize_annotate_layer(layer, config)

    with api.quantize_scope({nothing.__name__: nothing}), quiet():
        return api.quantize_apply(tf_keras.models.clone_model(floating, clone_function=annotate))


@functools.cache
def _no_quantization() -> Any:
    """Return the class of a tfmot configuration that quantizes nothing."""

    class NoQuantization(import_tfmot().quantization.keras.QuantizeConfig):
        """Leaves a layer as it is."""

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


def _set_ranges(model: Any, floating: Any, calibration: Any) -> None:
    """Set the range of every activation to what it is in floating point; they start at -6 to 6 otherwise."""
    named = [layer for layer in floating.layers if not isinstance(layer, tf_keras.layers.InputLayer)]
    outputs = tf_keras.Model(floating.inputs, [layer.output for layer in named]).predict(calibration, verbose=0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    ranges = {f"quant_{layer.name}": _range(x) for layer, x in zip(named, outputs, strict=True)}
    for layer in model.layers:
        found = _range(calibration) if type(layer).__name__ == "QuantizeLayer" else ranges.get(layer.name)
        for variable in layer.variables if found else ():
            name = variable.name.rpartition("/")[2].partition(":")[0]
            if name.endswith(("_min", "_max")) and not name.startswith(("kernel", "depthwise")):
                variable.assign(found[name.endswith("_max")])
    # A call in training sets the ranges of the kernels.
    model(calibration[:1], training=True)


def _range(values: Any) -> tuple[float, float]:
    """Return the least and the largest value, 0 among them, for int8 must have it."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return (low, high) if high > low else (0.0, 1e-6)


def _hold_zeros(model: Any) -> None:
    """Keep the zeros of every kernel that has any; tf_keras applies a variable's constraint after each update."""
    for variable in model.trainable_variables:
        kept = (variable.numpy() != 0).astype("float32")
        if "kernel" in variable.name and not kept.all():
            variable._constraint = functools.partial(tf.multiply, tf.constant(kept))


def to_int8(model: Any, serve: Callable[[Any, Any], Any], shape: tuple[int, ...], names: tuple[str, str]) -> bytes:
    """Return a model that imitates int8 as a .tflite whose input, output and tensors all are int8.

    Args:
        model: what `quantize_aware` returns.
        serve: `serve(model, inputs)` gives the outputs; what stands before the model must imitate int8 too.
        shape: of the inputs, batch included.
        names: of input and output.
    """
    spec = tf.TensorSpec(shape, tf.float32, name=names[0])

    @tf.function(autograph=False, input_signature=[spec])
    def function(inputs: Any) -> Any:
        return {names[1]: serve(model, inputs)}

    # With variables in it the converter fails on READ_VARIABLE.
    frozen = freezing.convert_variables_to_constants_v2(function.get_concrete_function())
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()


def plain(model: Any, inputs: Any) -> Any:
    """Serve a model as it is."""
    return model(inputs, training=False)


def kernels(model: Any) -> dict[str, _np.ndarray]:
    """Return the kernels of a model by the name of their layer in the network."""
    found = {
        v.name.partition("/")[0].removeprefix("quant_"): v for v in model.trainable_variables if "kernel" in v.name
    }
    return {name: np.asarray(variable) for name, variable in found.items()}


def bring_back(model: Any, network: _keras.Model) -> None:
    """Copy kernels and biases of a model that imitates int8 into the network that it was made from, by name."""
    found = {}
    for variable in model.trainable_variables:
        layer, _, name = variable.name.partition(":")[0].removeprefix("quant_").partition("/")
        found[layer, name.removeprefix("depthwise_")] = variable.numpy()
    for layer in network.layers:
        if layer.trainable_weights:
            layer.set_weights([found[layer.name, variable.name] for variable in layer.weights])
