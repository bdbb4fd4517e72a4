"""Batch normalization of a batch that several devices share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.common.lazy import keras, tf


def shared_batch() -> bool:
    """Tell whether this is the part of a batch that one of several devices computes."""
    if keras.backend.backend() != "tensorflow":
        return False
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1


def shared_moments(layer: Any, inputs: Any) -> tuple[Any, Any]:
    """Return mean and variance, float32 (channels,), of a batch normalization's inputs on all devices, evenly shared.

    One sum over the devices does. Values are taken from the running mean, which is the same on each of them: of the
    mean and the mean square alone, the difference has no digits left where values lie far from 0.

    The gradient is written out, with one sum over the devices too. TensorFlow's own would be sums of three parts, and
    AddN begins with the first of them that nobody else reads any more: the order depended on timing, and two runs of
    several processes were not the same to the bit.
    """
    axes, near = layer._reduction_axes, tf.cast(tf.convert_to_tensor(layer.moving_mean), tf.float32)

    @tf.custom_gradient
    def moments(values: Any) -> tuple[Any, Callable[[Any, Any], Any]]:
        mean, variance = tf.nn.moments(values, axes)
        away = mean - near
        away, square = tf.unstack(_mean_over_devices(tf.stack([away, variance + away * away])))
        mean, variance = near + away, tf.maximum(square - away * away, 0.0)

        def gradient(of_mean: Any, of_variance: Any) -> Any:
            of_mean, of_variance = tf.unstack(_mean_over_devices(tf.stack([of_mean, of_variance])))
            count = tf.cast(tf.size(values) / tf.size(mean), tf.float32)
            return (of_mean + 2.0 * (values - mean) * of_variance) / count

        return (mean, variance), gradient

    return moments(tf.cast(inputs, tf.float32))


def _mean_over_devices(values: Any) -> Any:
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values) / context.num_replicas_in_sync
