"""A tf_keras copy of a Keras model, because tensorflow-model-optimization supports tf_keras only.

For a child process only: importing tfmot changes the process; see `export.compression.compat.import_tfmot`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import Call, calls, check_same, probe
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule, keras

if TYPE_CHECKING:
    import keras as _keras

tf_keras = LazyModule("tf_keras", "tf-keras")

TOLERANCE = 1e-5
# Layers with the same class, options and weights in both.
COMMON_LAYERS = (
    "Add", "AveragePooling2D", "Average", "Concatenate", "Conv2D", "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout",
    "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "LeakyReLU", "MaxPooling2D", "Maximum", "Multiply",
    "ReLU", "Reshape", "Subtract", "UpSampling2D", "ZeroPadding2D", "Activation",
)  # fmt: skip
# Options of initialization and training, which the copy does not need, and of the dtype.
DROPPED_OPTIONS = ("initializer", "regularizer", "constraint", "dtype", "synchronized")


def tf_keras_copy(model: _keras.Model, *, strict: bool = False) -> Any:
    """Return a tf_keras.Model that computes the same, with the same layer names and its own weights.

    Args:
        model: a functional model in float32; it is not changed.
        strict: refuse layers that tf_keras lacks. Otherwise they are wrapped and share their weights with `model`.

    Raises:
        UnsupportedExport: a layer is not in float32, or tf_keras lacks it; the message names it.
        ExportError: the outputs of the copy differ.
    """
    layers: dict[str, Any] = {}
    tensors: dict[int, Any] = {}
    for call in calls(model):
        if not call.inputs:
            (tensor,) = call.outputs
            tensors[id(tensor)] = tf_keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=call.layer.name)
            continue
        if call.layer.name not in layers:
            layers[call.layer.name] = _tf_keras_layer(call, strict)
        outputs = layers[call.layer.name](_unpacked([tensors[id(tensor)] for tensor in call.inputs]))
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        tensors |= {id(tensor): output for tensor, output in zip(call.outputs, outputs, strict=True)}
    copy = tf_keras.Model(*(_unpacked([tensors[id(t)] for t in group]) for group in (model.inputs, model.outputs)))
    copy_weights(model, copy)
    check_same(model, copy, probe(model), TOLERANCE)
    return copy


def _unpacked(tensors: list[Any]) -> Any:
    """Return the only tensor, or the list of all."""
    return tensors[0] if len(tensors) == 1 else tensors


def _tf_keras_layer(call: Call, strict: bool) -> Any:
    """Return the tf_keras layer that computes the same as a layer."""
    layer = call.layer
    if getattr(layer, "compute_dtype", "float32") != "float32":
        raise UnsupportedExport(
            f"A tf_keras copy needs float32 layers. Received: layer={layer.name}, dtype={layer.compute_dtype}"
        )
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    kind = _common_class(layer)
    if kind == "Activation" and activation == "relu6":
        return tf_keras.layers.ReLU(6.0, name=layer.name)
    if kind and hasattr(tf_keras.activations, activation):
        cls = getattr(tf_keras.layers, kind)
        return cls(**_options(layer, inspect.signature(cls.__init__).parameters))
    if strict or not isinstance(layer, keras.layers.Layer):
        what = f"activation={activation}" if kind else f"type={type(layer).__name__}"
        raise UnsupportedExport(
            f"Expected a layer that tf_keras has. Received: layer={layer.name}, {what}. "
            "Use another compression, or other layers."
        )
    return _wrapper(layer)


def _common_class(layer: Any) -> str:
    """Return the name of the class that Keras and tf_keras have in common, "" if there is none."""
    return next((kind.__name__ for kind in type(layer).__mro__ if kind.__name__ in COMMON_LAYERS), "")


def _options(layer: Any, known: Iterable[str]) -> dict[str, Any]:
    """Return the options of a layer for tf_keras."""
    options = {"name": layer.name}
    for name, value in layer.get_config().items():
        if name in known and not any(word in name for word in DROPPED_OPTIONS):
            options[name] = value
    return options


def _wrapper(layer: Any) -> Any:
    """Return a tf_keras layer that calls a Keras layer; an attribute with Keras variables would break tracking."""

    class Wrapped(tf_keras.layers.Layer):
        """A Keras layer inside tf_keras."""

        def call(self, inputs: Any) -> Any:
            return layer(inputs)

    return Wrapped(name=layer.name)


def copy_weights(source: Any, target: Any) -> None:
    """Copy the weights of a model into its copy, or back, by layer name; shared weights stay."""
    by_name = {layer.name: layer for layer in target.layers}
    for layer in source.layers:
        other = by_name.get(layer.name)
        if other is not None and layer.get_weights() and other.get_weights():
            other.set_weights(layer.get_weights())


def fit(
    model: Any,
    batches: Callable[[int], Any],
    epochs: int,
    *,
    rate: float,
    smoothing: float = 0.0,
    optimizer: str = "sgd",
    callbacks: Any = (),
) -> None:
    """Train a tf_keras model with a learning rate that decays to 0 on a cosine.

    Args:
        model: a tf_keras model with logits (n, classes).
        batches: `batches(epoch)` is a tf.data.Dataset of (inputs, labels one-hot), of known length.
        epochs: number of epochs.
        rate: initial learning rate.
        smoothing: label smoothing.
        optimizer: name of the optimizer; SGD with momentum replaces one that tf_keras lacks.
        callbacks: tf_keras callbacks.
    """
    steps = int(batches(0).cardinality()) * epochs
    schedule = tf_keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = tf_keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    model.compile(_optimizer(optimizer, schedule), loss)
    for epoch in range(epochs):
        model.fit(batches(epoch), initial_epoch=epoch, epochs=epoch + 1, callbacks=list(callbacks), verbose=0)


def _optimizer(name: str, rate: Any) -> Any:
    """Return the tf_keras optimizer of a name, in any case of letters."""
    kinds = {kind.lower(): value for kind, value in vars(tf_keras.optimizers).items() if inspect.isclass(value)}
    if name.lower() == "sgd" or name.lower() not in kinds:
        return tf_keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    return kinds[name.lower()](rate)
