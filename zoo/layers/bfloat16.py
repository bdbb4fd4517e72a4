"""TensorFlow operations for bfloat16 training on CPU, with faster gradients than TensorFlow's.

Each computes the same function. Measured on two cores with AMX; inference, GPUs and exports do not use them.
"""

from __future__ import annotations

import functools
from typing import Any

from zoo.common import compat


def has_gpu() -> bool:
    """Return whether TensorFlow sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@functools.cache
def has_onednn(dtype: str = "bfloat16") -> bool:
    """Return whether TensorFlow computes a dtype with oneDNN on this CPU: bfloat16 needs AVX-512 or newer.

    TensorFlow's other kernels round sums to bfloat16 and have no gradient of grouped convolutions.
    """
    return compat.onednn_computes(dtype)


def is_fast() -> bool:
    """Return whether the operations of this module are faster than Keras' own: on a CPU with oneDNN's bfloat16."""
    return has_onednn() and not has_gpu()


def convolve(inputs: Any, kernel: Any, strides: tuple[int, int], padding: str) -> Any:
    """Convolve (n, h, w, c) by (kh, kw, c, filters); the kernel's gradient is patches(inputs)ᵀ · upstream."""
    import tensorflow as tf

    step = [1, *strides, 1]

    @tf.custom_gradient
    def function(x: Any, k: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            to_input = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x), filter=k, out_backprop=upstream, strides=step, padding=padding
            )
            patches = _patches(x, tuple(k.shape[:2]), strides, padding)
            rows = tf.reshape(upstream, [-1, k.shape[-1]])
            return to_input, tf.reshape(tf.matmul(patches, rows, transpose_a=True), k.shape)

        return tf.nn.conv2d(x, k, step, padding), gradient

    return function(inputs, tf.cast(tf.convert_to_tensor(kernel), inputs.dtype))


def _patches(x: Any, size: tuple[int, int], strides: tuple[int, int], padding: str) -> Any:
    """Return the receptive field of each output position as one row; copying slices is faster than patches."""
    import tensorflow as tf

    if size == (1, 1):
        return tf.reshape(x if strides == (1, 1) else x[:, :: strides[0], :: strides[1]], [-1, x.shape[-1]])
    if size == strides and padding == "VALID" and None not in x.shape[1:]:
        return _tiles(x, size)
    (before, count, after), (left, width, right) = (
        _around(n, k, s, padding) for n, k, s in zip(x.shape[1:3], size, strides, strict=True)
    )
    x = tf.pad(x, [[0, 0], [before, after], [left, right], [0, 0]]) if padding == "SAME" else x
    slices = [
        x[:, i : i + (count - 1) * strides[0] + 1 : strides[0], j : j + (width - 1) * strides[1] + 1 : strides[1]]
        for i in range(size[0])
        for j in range(size[1])
    ]
    return tf.reshape(tf.concat(slices, axis=3), [-1, len(slices) * x.shape[-1]])


def _tiles(x: Any, size: tuple[int, int]) -> Any:
    """Return non-overlapping adjacent patches, one row each."""
    import tensorflow as tf

    (height, width), channels = size, x.shape[3]
    rows, columns = x.shape[1] // height, x.shape[2] // width
    x = tf.reshape(x[:, : rows * height, : columns * width], [-1, rows, height, columns, width * channels])
    return tf.reshape(tf.transpose(x, [0, 1, 3, 2, 4]), [-1, height * width * channels])


def _around(length: int, size: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Return (zeros before, output positions, zeros after) of one axis."""
    if padding == "VALID":
        return 0, (length - size) // stride + 1, 0
    count = -(-length // stride)
    total = max((count - 1) * stride + size - length, 0)
    return total // 2, count, total - total // 2


def depthwise(inputs: Any, kernel: Any, strides: tuple[int, int], padding: str) -> Any:
    """Convolve each channel separately: (n, h, w, c) by (kh, kw, c, 1).

    The gradient of the input is a convolution by the flipped kernel if the sizes agree, because the forward kernel is
    faster. Otherwise it is computed in float32: with strides the bfloat16 kernel takes 4 to 10 times as long.
    """
    import tensorflow as tf

    step = [1, *strides, 1]
    flipped = strides == (1, 1) and padding == "SAME" and all(size % 2 for size in kernel.shape[:2])

    @tf.custom_gradient
    def function(x: Any, k: Any) -> Any:
        def to_input(upstream: Any) -> Any:
            if flipped:
                return tf.nn.depthwise_conv2d(upstream, k[::-1, ::-1], step, padding)
            in_float32 = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(x),
                filter=tf.cast(k, tf.float32),
                out_backprop=tf.cast(upstream, tf.float32),
                strides=step,
                padding=padding,
            )
            return tf.cast(in_float32, x.dtype)

        def gradient(upstream: Any) -> tuple[Any, Any]:
            to_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x, filter_sizes=tf.shape(k), out_backprop=upstream, strides=step, padding=padding
            )
            return to_input(upstream), to_kernel

        return tf.nn.depthwise_conv2d(x, k, step, padding), gradient

    return function(inputs, tf.cast(tf.convert_to_tensor(kernel), inputs.dtype))
