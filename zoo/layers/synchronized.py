"""Batch statistics over all devices that share a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.common import compat
from zoo.common.lazy import keras, tf


def shared_batch() -> bool:
    """Return whether this device computes one shard of a batch that several devices share."""
    if keras.backend.backend() != "tensorflow":
        return False
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1


def shared_moments(layer: Any, inputs: Any) -> tuple[Any, Any]:
    """Return the mean and variance over all devices, which hold shards of equal size.

    The devices exchange one sum. It is taken relative to the moving mean, which is the same on every device: from the
    mean and the mean square alone, the difference would lose all digits if the values are far from 0.

    The gradient is explicit and exchanges one sum too. TensorFlow's gradient would be a sum of three parts, which AddN
    adds in an order that depends on timing, so that two runs of several processes would differ in the last bits.

    Args:
        layer: the batch normalization.
        inputs: its inputs (n, ..., channels) on this device.

    Returns:
        Mean and variance, float32 (channels,).
    """
    axes, near = compat.reduction_axes(layer), tf.cast(tf.convert_to_tensor(layer.moving_mean), tf.float32)

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
