"""Layers that Keras lacks or runs slowly. Imports Keras: reach it through `zoo._lazy.layers`.

Both layers compute what Keras' own compute and differ only in the kernel that does it, so they are saved under the
name of Keras' own: a `.keras` file of a zoo model opens with Keras alone.
"""

from __future__ import annotations

from typing import Any

import keras


def _on_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization through TensorFlow's fused kernel (Ioffe and Szegedy 2015, arXiv:1502.03167).

    Keras casts to float32, takes moments and normalizes by separate operations. FusedBatchNormV3 is one operation
    and reads and writes bfloat16 and float16 with float32 statistics, scale and offset. Input: (n, height, width,
    channels) in float32, float16 or bfloat16; anything else takes Keras' own way.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the normalized inputs, in their dtype."""
        if not self._fusible(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        return self._fused(inputs, bool(training) and self.trainable)

    def _fusible(self, inputs: Any, mask: Any) -> bool:
        """Tell whether the fused kernel can do this call; it knows no mask, no replica group and no other axis."""
        return (
            _on_tensorflow()
            and mask is None
            and not self.synchronized
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
            # The kernel wants float32 statistics; a pure half-precision policy has none.
            and keras.backend.standardize_dtype(self.variable_dtype) == "float32"
        )

    def _fused(self, inputs: Any, training: bool) -> Any:
        """Call FusedBatchNormV3 and, in training, move the averages."""
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
            # The kernel returns the unbiased variance; Keras keeps the biased one.
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
            self.moving_mean.assign(self._moved(mean, batch_mean))
            self.moving_variance.assign(self._moved(variance, batch_variance * ((count - 1.0) / count)))
        return outputs

    def _moved(self, average: Any, value: Any) -> Any:
        return average * self.momentum + value * (1.0 - self.momentum)


class Conv2D(keras.layers.Conv2D):
    """Convolution whose kernel gradient is one matrix product in bfloat16 training on CPU, where that is faster.

    oneDNN's backward-weights kernel reaches a tenth of the speed of its matrix product on 1x1 kernels and on small
    feature maps (measured: 3 to 7 times slower). Forward and input gradient are TensorFlow's own; inference, exports,
    other dtypes and other devices never leave Keras' way.
    """

    # Above this many output positions an image, gathering the patches of a larger kernel costs more than it saves.
    LARGEST_MAP = 49

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the convolution of inputs (n, height, width, channels)."""
        if not (training and self._patchable(inputs)):
            return super().call(inputs)
        outputs = _convolve(inputs, self.kernel, self.strides, self.padding.upper())
        if self.use_bias:
            outputs = keras.ops.add(outputs, keras.ops.cast(self.bias, outputs.dtype))
        return outputs if self.activation is None else self.activation(outputs)

    def _patchable(self, inputs: Any) -> bool:
        """Tell whether the gradient by patches is the same and is faster."""
        return (
            _on_tensorflow()
            and keras.backend.standardize_dtype(inputs.dtype) == "bfloat16"
            and self.data_format == "channels_last"
            and self.groups == 1
            and self.dilation_rate == (1, 1)
            and (self.kernel_size == (1, 1) or self._positions(inputs) <= self.LARGEST_MAP)
            and not _has_gpu()
        )

    def _positions(self, inputs: Any) -> int:
        """Count the positions of the output map; a free size counts as large."""
        height, width = self.compute_output_shape(inputs.shape)[1:3]
        return height * width if height and width else self.LARGEST_MAP + 1


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _convolve(inputs: Any, kernel: Any, strides: tuple[int, int], padding: str) -> Any:
    """Convolve; the gradient of the kernel is patches(inputs)ᵀ · gradient of the outputs."""
    import tensorflow as tf

    step = [1, *strides, 1]

    @tf.custom_gradient
    def convolve(x: Any, k: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            to_input = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x), filter=k, out_backprop=upstream, strides=step, padding=padding
            )
            patches = _patches(x, k.shape[:2], step, padding)
            rows = tf.reshape(upstream, [-1, k.shape[-1]])
            return to_input, tf.reshape(tf.matmul(patches, rows, transpose_a=True), k.shape)

        return tf.nn.conv2d(x, k, step, padding), gradient

    return convolve(inputs, tf.cast(tf.convert_to_tensor(kernel), inputs.dtype))


def _patches(x: Any, size: Any, step: list[int], padding: str) -> Any:
    """Return what the kernel sees at each output position, one row each."""
    import tensorflow as tf

    if tuple(size) != (1, 1) or step != [1, 1, 1, 1]:
        x = tf.image.extract_patches(x, [1, *size, 1], step, [1, 1, 1, 1], padding)
    return tf.reshape(x, [-1, x.shape[-1]])


# See the module's docstring: saved as Keras' own, since nothing but the kernel differs.
for _layer in (BatchNormalization, Conv2D):
    _layer.__module__ = "keras.layers"
