"""Convolutions with faster CPU kernels than Keras. Imports Keras."""

from __future__ import annotations

from typing import Any

import keras

from zoo.layers import bfloat16
from zoo.layers.kernels import add_bias_and_activate, on_tensorflow, trains_in_bfloat16_on_cpu
from zoo.layers.saving import KernelLayer, saved_as_keras


@saved_as_keras("keras.layers")
class Conv2D(KernelLayer, keras.layers.Conv2D):
    """Convolution with the fastest TensorFlow kernel on CPU; Keras' own everywhere else.

    In bfloat16 training the kernel gradient is one matrix product where that is faster: oneDNN's backward-weights
    kernel reaches a tenth of its speed on 1x1 kernels, on small feature maps and on non-overlapping patches (measured:
    3 to 7 times slower).
    A grouped convolution is one TensorFlow operation: Keras compiles it with XLA, which no converter supports
    (measured: 300 to 1,000 times slower).
    """

    # With more output positions per image, gathering the patches of a larger kernel costs more than it saves.
    LARGEST_MAP = 100

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the convolution of inputs (n, height, width, channels)."""
        if self._groupable():
            return add_bias_and_activate(self, self._grouped(inputs, bool(training)))
        if training and self._patchable(inputs):
            outputs = bfloat16.convolve(inputs, self.kernel, self.strides, self.padding.upper())
            return add_bias_and_activate(self, outputs)
        return super().call(inputs)

    def _grouped(self, inputs: Any, training: bool) -> Any:
        """Convolve in groups, which TensorFlow infers from the kernel's shape.

        On CPU only oneDNN has all kernels for it. Their gradient is faster in bfloat16 and slower in float32 than one
        convolution per group.
        """
        import tensorflow as tf

        kernel, step = tf.cast(tf.convert_to_tensor(self.kernel), inputs.dtype), list(self.strides)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        lacks_kernels = not bfloat16.has_onednn(dtype) or (training and dtype != "bfloat16")
        if lacks_kernels and not bfloat16.has_gpu():
            # TensorFlow's own kernels would sum in the lower precision.
            wide = "float64" if dtype == "float64" else "float32"
            inputs, kernel = tf.cast(inputs, wide), tf.cast(kernel, wide)
            parts = zip(tf.split(inputs, self.groups, -1), tf.split(kernel, self.groups, -1), strict=True)
            outputs = tf.concat([tf.nn.conv2d(x, k, step, self.padding.upper()) for x, k in parts], -1)
            return tf.cast(outputs, dtype)
        return tf.nn.conv2d(inputs, kernel, step, self.padding.upper())

    def _groupable(self) -> bool:
        """Return whether one TensorFlow operation supports these groups."""
        plain = self.data_format == "channels_last" and self.dilation_rate == (1, 1)
        return self.groups > 1 and plain and on_tensorflow()

    def _patchable(self, inputs: Any) -> bool:
        """Return whether the gradient by patches is equivalent and faster."""
        return (
            self.data_format == "channels_last"
            and self.groups == 1
            and self.dilation_rate == (1, 1)
            and (self.kernel_size == (1, 1) or self._tiles(inputs) or self._positions(inputs) <= self.LARGEST_MAP)
            and trains_in_bfloat16_on_cpu(inputs)
        )

    def _tiles(self, inputs: Any) -> bool:
        """Return whether the patches touch without overlap, so that gathering them is a transposition."""
        return self.kernel_size == self.strides and self.padding == "valid" and None not in inputs.shape[1:]

    def _positions(self, inputs: Any) -> int:
        """Return the number of output positions; a dynamic size counts as large."""
        height, width = self.compute_output_shape(inputs.shape)[1:3]
        return height * width if height and width else self.LARGEST_MAP + 1


@saved_as_keras("keras.layers")
class DepthwiseConv2D(KernelLayer, keras.layers.DepthwiseConv2D):
    """Depthwise convolution with a faster gradient in bfloat16 training on CPU; Keras' own everywhere else."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the convolution of inputs (n, height, width, channels)."""
        plain = self.data_format == "channels_last" and self.dilation_rate == (1, 1) and self.depth_multiplier == 1
        if not (training and plain and trains_in_bfloat16_on_cpu(inputs)):
            return super().call(inputs)
        outputs = bfloat16.depthwise(inputs, self.kernel, self.strides, self.padding.upper())
        return add_bias_and_activate(self, outputs)
