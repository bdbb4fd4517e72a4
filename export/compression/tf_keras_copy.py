"""A tf_keras twin of a Keras network: tensorflow-model-optimization takes no other.

For a child process only, since TensorFlow keeps what is imported here: see `import_tfmot`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import Call, calls, check_same, probe
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule, keras, tf

if TYPE_CHECKING:
    import keras as _keras

tf_keras = LazyModule("tf_keras", "tf-keras")

ALLOWED = 1e-5
# Same class, same options and the same weights in both.
SHARED = (
    "Add", "AveragePooling2D", "Average", "Concatenate", "Conv2D", "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout",
    "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "LeakyReLU", "MaxPooling2D", "Maximum", "Multiply",
    "ReLU", "Reshape", "Subtract", "UpSampling2D", "ZeroPadding2D", "Activation",
)  # fmt: skip
# Options of how weights start and are kept, which are of no use here, and of how a layer computes.
DROPPED = ("initializer", "regularizer", "constraint", "dtype", "synchronized")


@functools.cache
def import_tfmot() -> Any:
    """Return tensorflow_model_optimization, imported so that this process keeps Keras 3 as tf.keras.

    It sets TF_USE_LEGACY_KERAS, which would reach child processes and whatever touches tf.keras for the first time.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    _ = tf.keras.Model
    try:
        return importlib.import_module("tensorflow_model_optimization")
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


def tf_keras_copy(network: _keras.Model, *, strict: bool = False) -> Any:
    """Return a tf_keras.Model of the same function, with layers of the same names and weights of its own.

    Args:
        network: a functional network in float32; it stays as it is.
        strict: refuse layers that tf_keras lacks. Otherwise they are wrapped and share their weights with `network`.

    Raises:
        UnsupportedExport: names the layer that tf_keras lacks or that is not in float32.
        ExportError: the twin computes something else.
    """
    made: dict[str, Any] = {}
    tensors: dict[int, Any] = {}
    for call in calls(network):
        if not call.inputs:
            (tensor,) = call.outputs
            tensors[id(tensor)] = tf_keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=call.layer.name)
            continue
        if call.layer.name not in made:
            made[call.layer.name] = _counterpart(call, strict)
        outputs = made[call.layer.name](_one([tensors[id(tensor)] for tensor in call.inputs]))
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        tensors |= {id(tensor): output for tensor, output in zip(call.outputs, outputs, strict=True)}
    model = tf_keras.Model(*(_one([tensors[id(t)] for t in group]) for group in (network.inputs, network.outputs)))
    copy_weights(network, model)
    check_same(network, model, probe(network), ALLOWED)
    return model


def _one(tensors: list[Any]) -> Any:
    """Return the only tensor, or all of them."""
    return tensors[0] if len(tensors) == 1 else tensors


def _counterpart(call: Call, strict: bool) -> Any:
    """Return the tf_keras layer that does what a layer does."""
    layer = call.layer
    if getattr(layer, "compute_dtype", "float32") != "float32":
        raise UnsupportedExport(f"A twin is made in float32. Received: layer={layer.name} in {layer.compute_dtype}")
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    kind = _kind(layer)
    if kind == "Activation" and activation == "relu6":
        return tf_keras.layers.ReLU(6.0, name=layer.name)
    if kind and hasattr(tf_keras.activations, activation):
        cls = getattr(tf_keras.layers, kind)
        return cls(**_options(layer, inspect.signature(cls.__init__).parameters))
    if strict or not isinstance(layer, keras.layers.Layer):
        what = f"activation={activation}" if kind else f"type={type(layer).__name__}"
        raise UnsupportedExport(
            f"tf_keras has no layer like it. Received: layer={layer.name}, {what}. "
            "Use another way to make the network smaller, or other layers."
        )
    return _wrapped(layer)


def _kind(layer: Any) -> str:
    """Return the name of the class that both have, "" if there is none."""
    return next((kind.__name__ for kind in type(layer).__mro__ if kind.__name__ in SHARED), "")


def _options(layer: Any, known: Iterable[str]) -> dict[str, Any]:
    """Return a layer's options as tf_keras takes them."""
    options = {"name": layer.name}
    for name, value in layer.get_config().items():
        if name in known and not any(word in name for word in DROPPED):
            options[name] = value
    return options


def _wrapped(layer: Any) -> Any:
    """Return a tf_keras layer that calls a Keras layer; as an attribute that one's variables would break tracking."""

    class Wrapped(tf_keras.layers.Layer):
        """A Keras layer inside tf_keras."""

        def call(self, inputs: Any) -> Any:
            return layer(inputs)

    return Wrapped(name=layer.name)


def copy_weights(source: Any, target: Any) -> None:
    """Copy the weights of a network into its twin, or back, layer by layer by name; those that are shared stay."""
    theirs = {layer.name: layer for layer in target.layers}
    for layer in source.layers:
        other = theirs.get(layer.name)
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
    """Train a tf_keras model, the learning rate falling to 0 on a cosine.

    Args:
        model: gives logits (n, classes).
        batches: `batches(epoch)` is a tf.data.Dataset of (inputs, labels one-hot), of known length.
        epochs: how long.
        rate: learning rate at the start.
        smoothing: of the labels.
        optimizer: its name; SGD with momentum stands for one that tf_keras lacks.
        callbacks: those of tf_keras.
    """
    steps = int(batches(0).cardinality()) * epochs
    schedule = tf_keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = tf_keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    model.compile(_optimizer(optimizer, schedule), loss)
    for epoch in range(epochs):
        model.fit(batches(epoch), initial_epoch=epoch, epochs=epoch + 1, callbacks=list(callbacks), verbose=0)


def _optimizer(name: str, rate: Any) -> Any:
    """Return tf_keras' optimizer of a name, in any case."""
    kinds = {kind.lower(): value for kind, value in vars(tf_keras.optimizers).items() if inspect.isclass(value)}
    if name.lower() == "sgd" or name.lower() not in kinds:
        return tf_keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    return kinds[name.lower()](rate)
