"""Fused elementwise operations for training transformers on CPU, each compiled to one loop by XLA.

TensorFlow passes over memory once per operation, and some of its bfloat16 kernels take ten times as long as the
arithmetic. Every function here computes in float32 and rounds once. Measured on two cores with AMX; inference, GPUs and
exports do not use these functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

ROOT_HALF = 0.7071067811865476
DENSITY = 0.3989422804014327  # of the standard normal distribution at 0


def gelu(inputs: Any) -> Any:
    """Return x / 2 * (1 + erf(x / sqrt 2)), the exact GELU (arXiv:1606.08415)."""
    import tensorflow as tf

    @tf.custom_gradient
    def function(x: Any) -> Any:
        return _compiled(_gelu)(x), lambda upstream: _compiled(_gelu_gradient)(x, upstream)

    return function(inputs)


def layer_norm(inputs: Any, scale: Any, offset: Any, epsilon: float) -> Any:
    """Normalize over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450).

    Args:
        inputs: values (..., channels).
        scale: float32 (channels,).
        offset: float32 (channels,).
        epsilon: added to variances.
    """
    import tensorflow as tf

    shape = [-1, *inputs.shape[1:]]

    @tf.custom_gradient
    def function(x: Any, scale: Any, offset: Any) -> Any:
        rows = tf.reshape(x, [-1, shape[-1]])
        y, mean, root = _compiled(_normalized)(rows, scale, offset, epsilon)

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            upstream = tf.reshape(upstream, [-1, shape[-1]])
            change, product = _compiled(_normalized_gradient)(rows, mean, root, scale, upstream)
            return tf.reshape(change, shape), _total(product, tf.float32), _total(upstream, tf.float32)

        return tf.reshape(y, shape), gradient

    return function(inputs, scale, offset)


def attention_weights(queries: Any, keys: Any, biases: Sequence[Any], scale: float) -> Any:
    """Return softmax(scale * queries keysᵀ + biases) (n, heads, queries, keys) of vectors (n, heads, t, d).

    Biases are constants: they get no gradient.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def function(q: Any, k: Any) -> Any:
        scores = tf.matmul(q * scale, k, transpose_b=True)
        weights = tf.nn.softmax(functools.reduce(tf.add, biases, scores))

        def gradient(upstream: Any) -> tuple[Any, Any]:
            change = _compiled(_softmax_gradient)(weights, upstream, scale)
            return tf.matmul(change, k), tf.matmul(change, q, transpose_a=True)

        return weights, gradient

    return function(queries, keys)


def dense(inputs: Any, kernel: Any, bias: Any) -> Any:
    """Return inputs (n, features) times a kernel plus a bias.

    TensorFlow would fuse the sum into the product, where oneDNN's bfloat16 kernel is 2 to 3 times slower.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def function(x: Any, k: Any, b: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            to_kernel = tf.matmul(x, upstream, transpose_a=True)
            return tf.matmul(upstream, k, transpose_b=True), to_kernel, _total(upstream, b.dtype)

        return _compiled(_sum)(tf.matmul(x, k), b), gradient

    return function(inputs, kernel, bias)


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of tensors, compiled by XLA."""
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def _total(rows: Any, dtype: Any) -> Any:
    """Return the sum of all rows (n, width) as a matrix product, which oneDNN accumulates in float32."""
    import tensorflow as tf

    ones = tf.ones([1, tf.shape(rows)[0]], rows.dtype)
    return tf.cast(tf.reshape(tf.matmul(ones, rows), [-1]), dtype)


def _sum(x: Any, y: Any) -> Any:
    return x + y


def _gelu(x: Any) -> Any:
    wide = _wide(x)
    return _rounded(wide * _normal_cdf(wide), x)


def _gelu_gradient(x: Any, upstream: Any) -> Any:
    import tensorflow as tf

    wide = _wide(x)
    slope = _normal_cdf(wide) + wide * DENSITY * tf.exp(-0.5 * wide * wide)
    return _rounded(_wide(upstream) * slope, x)


def _normal_cdf(x: Any) -> Any:
    """Return the cumulative distribution function of the standard normal distribution."""
    import tensorflow as tf

    return 0.5 * (1.0 + tf.math.erf(x * ROOT_HALF))


def _normalized(x: Any, scale: Any, offset: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Return normalized rows, and the mean and the inverse deviation (n, 1) of each."""
    import tensorflow as tf

    wide = _wide(x)
    inverse = 1.0 / x.shape[-1]
    mean = _row_sum(wide) * inverse
    wide = wide - mean
    root = tf.math.rsqrt(_row_sum(wide * wide) * inverse + epsilon)
    return _rounded(wide * root * scale + offset, x), mean, root


def _normalized_gradient(x: Any, mean: Any, root: Any, scale: Any, upstream: Any) -> tuple[Any, Any]:
    """Return the gradient of the rows, and the rows that sum to the gradient of the scale."""
    wide, upstream = (_wide(x) - mean) * root, _wide(upstream)
    change, inverse = upstream * scale, 1.0 / x.shape[-1]
    change = root * (change - _row_sum(change) * inverse - wide * _row_sum(change * wide) * inverse)
    return _rounded(change, x), _rounded(upstream * wide, x)


def _row_sum(x: Any) -> Any:
    """Return the sum of each row (..., 1) as a product; XLA's sums over the last axis take twice as long."""
    import tensorflow as tf

    total = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), tf.ones([x.shape[-1], 1]))
    return tf.reshape(total, [-1, *x.shape[1:-1], 1])


def _softmax_gradient(weights: Any, upstream: Any, scale: float) -> Any:
    wide, upstream = _wide(weights), _wide(upstream)
    return _rounded(scale * wide * (upstream - _row_sum(wide * upstream)), weights)


def _wide(x: Any) -> Any:
    import tensorflow as tf

    return tf.cast(x, tf.float32)


def _rounded(x: Any, like: Any) -> Any:
    import tensorflow as tf

    return tf.cast(x, like.dtype)
