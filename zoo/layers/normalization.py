"""Normalization layers that Keras lacks or runs slowly. Imports Keras."""

from __future__ import annotations

from typing import Any

import keras

from zoo.common import compat
from zoo.layers import fused
from zoo.layers.kernels import on_tensorflow, trains_on_cpu
from zoo.layers.saving import KernelLayer, saved_as_keras
from zoo.layers.synchronized import shared_batch, shared_moments


@saved_as_keras("keras.layers")
class BatchNormalization(KernelLayer, keras.layers.BatchNormalization):
    """Batch normalization with TensorFlow's fused kernel (Ioffe and Szegedy 2015, arXiv:1502.03167).

    Keras casts to float32, computes moments and normalizes in separate operations. FusedBatchNormV3 is one operation
    that reads and writes bfloat16 and float16 with float32 statistics, scale and offset. It supports inputs (n, height,
    width, channels) in float32, float16 or bfloat16; Keras' own operations handle everything else, including a batch
    that several devices share, with the mean and variance of the whole batch.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the normalized inputs, in their dtype."""
        updates = bool(training) and self.trainable
        if not self._fusible(inputs, mask) or (updates and shared_batch()):
            return super().call(inputs, training=training, mask=mask)
        return self._fused(inputs, updates)

    def _fusible(self, inputs: Any, mask: Any) -> bool:
        """Return whether the fused kernel supports this call; it supports no mask, replica group or other axis."""
        return (
            on_tensorflow()
            and mask is None
            and not self.synchronized
            and not getattr(self, "renorm", False)
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
            # The kernel needs float32 statistics; a pure half-precision policy has none.
            and keras.backend.standardize_dtype(self.variable_dtype) == "float32"
        )

    def _fused(self, inputs: Any, training: bool) -> Any:
        """Call FusedBatchNormV3 and, in training, update the moving averages."""
        import tensorflow as tf

        channels = inputs.shape[-1]
        mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones([channels]),
            offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros([channels]),
            mean=tf.zeros([0]) if training else mean,
            variance=tf.zeros([0]) if training else variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # The kernel returns the unbiased variance; Keras averages the biased one.
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
            self.moving_mean.assign(self._moving_average(mean, batch_mean))
            self.moving_variance.assign(self._moving_average(variance, batch_variance * ((count - 1.0) / count)))
        return outputs

    def _moving_average(self, average: Any, value: Any) -> Any:
        return average * self.momentum + value * (1.0 - self.momentum)


_keras_moments = compat.batch_moments(keras.layers.BatchNormalization)


def _moments(layer: Any, inputs: Any, mask: Any) -> Any:
    """Return the mean and variance of all examples that are normalized together, on one device or several."""
    if mask is not None or not shared_batch():
        return _keras_moments(layer, inputs, mask)
    return shared_moments(layer, inputs)


compat.set_batch_moments(BatchNormalization, _moments)


@saved_as_keras("keras.layers")
class LayerNormalization(KernelLayer, keras.layers.LayerNormalization):
    """Keras' layer normalization over the last axis, from operations with LiteRT int8 kernels.

    Keras multiplies the mean out of the difference, which leaves a negation in the graph.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return inputs (..., channels), normalized."""
        last = self.axis in (-1, [-1], len(inputs.shape) - 1, [len(inputs.shape) - 1])
        if not last or getattr(self, "rms_scaling", False):
            return super().call(inputs)
        plain = self.gamma is not None and self.beta is not None and None not in inputs.shape[1:]
        if training and plain and trains_on_cpu(inputs):
            scale, offset = (keras.ops.cast(weight, "float32") for weight in (self.gamma, self.beta))
            return fused.layer_norm(inputs, scale, offset, self.epsilon)
        # Half precision has too few digits for a sum of squares.
        x = keras.ops.cast(inputs, "float32")
        x = x - keras.ops.mean(x, axis=-1, keepdims=True)
        variance = keras.ops.mean(keras.ops.square(x), axis=-1, keepdims=True)
        x = x * keras.ops.rsqrt(variance + self.epsilon)
        x = x if self.gamma is None else x * keras.ops.cast(self.gamma, "float32")
        x = x if self.beta is None else x + keras.ops.cast(self.beta, "float32")
        return keras.ops.cast(x, inputs.dtype)


@keras.saving.register_keras_serializable("zoo")
class LayerScale(keras.layers.Layer):
    """Multiply each channel by a learned scale (Touvron et al. 2021, arXiv:2103.17239, equation 6).

    Args:
        initial: initial value of each scale.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, initial: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.initial = initial

    def build(self, input_shape: Any) -> None:
        """Create one scale per channel."""
        self.gamma = self.add_weight(
            shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.initial), name="gamma"
        )

    def call(self, inputs: Any) -> Any:
        """Return inputs (..., channels), scaled."""
        return inputs * keras.ops.cast(self.gamma, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"initial": self.initial}


@keras.saving.register_keras_serializable("zoo")
class LocalResponseNormalization(keras.layers.Layer):
    """Divide by the activity of neighbouring channels (Krizhevsky et al. 2012, section 3.3).

    y = x / (bias + alpha * sum of x² over 2 * radius + 1 channels) ** beta

    Args:
        radius: neighbours on each side.
        bias: k of the paper.
        alpha: alpha of the paper.
        beta: beta of the paper.
        **options: options of keras.layers.Layer.
    """

    def __init__(
        self, radius: int = 2, bias: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, **options: Any
    ) -> None:
        super().__init__(**options)
        self.radius, self.bias, self.alpha, self.beta = radius, bias, alpha, beta

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return inputs (n, height, width, channels), normalized."""
        supported = keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16")
        if training and supported and on_tensorflow():
            import tensorflow as tf

            return tf.nn.local_response_normalization(inputs, self.radius, self.bias, self.alpha, self.beta)
        squares = keras.ops.pad(inputs * inputs, [(0, 0)] * 3 + [(self.radius, self.radius)])
        channels = inputs.shape[-1]
        total = sum(squares[..., i : i + channels] for i in range(2 * self.radius + 1))
        return inputs * self._power(self.bias + self.alpha * total)

    def _power(self, x: Any) -> Any:
        """Return x ** -beta; LiteRT has an int8 kernel for the inverse root, none for powers."""
        if self.beta != 0.75:
            return keras.ops.power(x, -self.beta)
        root = keras.ops.rsqrt(x)
        return root * keras.ops.rsqrt(x * root)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        options = {"radius": self.radius, "bias": self.bias, "alpha": self.alpha, "beta": self.beta}
        return super().get_config() | options
