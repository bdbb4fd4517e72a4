"""Layers that Keras lacks or runs slowly. Imports Keras: reach it through `zoo.layers.lazy.layers`.

The first ones compute what Keras' own compute and differ only in the kernel that does it, so they are saved under the
name of Keras' own: a `.keras` file of such a model opens with Keras alone. The last two Keras has no layer for.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras

from zoo.layers import bfloat16
from zoo.layers import fused as kernels
from zoo.layers.synchronized import shared_batch, shared_moments


def _on_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization through TensorFlow's fused kernel (Ioffe and Szegedy 2015, arXiv:1502.03167).

    Keras casts to float32, takes moments and normalizes by separate operations. FusedBatchNormV3 is one operation
    and reads and writes bfloat16 and float16 with float32 statistics, scale and offset. Input: (n, height, width,
    channels) in float32, float16 or bfloat16; anything else takes Keras' own way, and so does a batch that several
    devices share: its mean and variance are those of all of it.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the normalized inputs, in their dtype."""
        learns = bool(training) and self.trainable
        if not self._fusible(inputs, mask) or (learns and shared_batch()):
            return super().call(inputs, training=training, mask=mask)
        return self._fused(inputs, learns)

    def _moments(self, inputs: Any, mask: Any) -> Any:
        """Return the mean and the variance of what is normalized together."""
        if mask is not None or not shared_batch():
            return super()._moments(inputs, mask)
        return shared_moments(self, inputs)

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
    """Convolution through the fastest of TensorFlow's kernels on CPU; elsewhere and otherwise it is Keras' own.

    The kernel gradient of bfloat16 training is one matrix product where that is faster: oneDNN's backward-weights
    kernel reaches a tenth of its speed on 1x1 kernels, on small feature maps and on patches that touch (measured: 3 to
    7 times slower).
    A convolution in groups is TensorFlow's own operation: Keras has XLA compile it, which no converter understands
    (measured: 300 to 1,000 times slower).
    """

    # Above this many output positions an image, gathering the patches of a larger kernel costs more than it saves.
    LARGEST_MAP = 100

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the convolution of inputs (n, height, width, channels)."""
        if self._groupable():
            return _finished(self, self._grouped(inputs, bool(training)))
        if training and self._patchable(inputs):
            outputs = bfloat16.convolve(inputs, self.kernel, self.strides, self.padding.upper())
            return _finished(self, outputs)
        return super().call(inputs)

    def _grouped(self, inputs: Any, training: bool) -> Any:
        """Convolve in groups, which TensorFlow reads off the kernel's shape.

        On CPU it has a gradient for that in oneDNN only, which is faster in bfloat16 and slower in float32 than one
        convolution for each group.
        """
        import tensorflow as tf

        kernel, step = tf.cast(tf.convert_to_tensor(self.kernel), inputs.dtype), list(self.strides)
        in_bfloat16 = keras.backend.standardize_dtype(inputs.dtype) == "bfloat16"
        if training and not bfloat16.has_gpu() and not (in_bfloat16 and bfloat16.has_onednn()):
            parts = zip(tf.split(inputs, self.groups, -1), tf.split(kernel, self.groups, -1), strict=True)
            return tf.concat([tf.nn.conv2d(x, k, step, self.padding.upper()) for x, k in parts], -1)
        return tf.nn.conv2d(inputs, kernel, step, self.padding.upper())

    def _groupable(self) -> bool:
        """Tell whether TensorFlow's operation can do these groups."""
        plain = self.data_format == "channels_last" and self.dilation_rate == (1, 1)
        return self.groups > 1 and plain and _on_tensorflow()

    def _patchable(self, inputs: Any) -> bool:
        """Tell whether the gradient by patches is the same and is faster."""
        return (
            self.data_format == "channels_last"
            and self.groups == 1
            and self.dilation_rate == (1, 1)
            and (self.kernel_size == (1, 1) or self._tiles(inputs) or self._positions(inputs) <= self.LARGEST_MAP)
            and _in_bfloat16_on_cpu(inputs)
        )

    def _tiles(self, inputs: Any) -> bool:
        """Tell whether the patches touch without overlapping, so that gathering them is a transposition."""
        return self.kernel_size == self.strides and self.padding == "valid" and None not in inputs.shape[1:]

    def _positions(self, inputs: Any) -> int:
        """Count the positions of the output map; a free size counts as large."""
        height, width = self.compute_output_shape(inputs.shape)[1:3]
        return height * width if height and width else self.LARGEST_MAP + 1


class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Depthwise convolution with a faster gradient in bfloat16 training on CPU; elsewhere it is Keras' own."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the convolution of inputs (n, height, width, channels)."""
        plain = self.data_format == "channels_last" and self.dilation_rate == (1, 1) and self.depth_multiplier == 1
        if not (training and plain and _in_bfloat16_on_cpu(inputs)):
            return super().call(inputs)
        outputs = bfloat16.depthwise(inputs, self.kernel, self.strides, self.padding.upper())
        return _finished(self, outputs)


def _finished(layer: Any, outputs: Any) -> Any:
    """Add a layer's bias and activate, as Keras does after its own kernel."""
    if layer.use_bias:
        outputs = keras.ops.add(outputs, keras.ops.cast(layer.bias, outputs.dtype))
    return outputs if layer.activation is None else layer.activation(outputs)


def _in_bfloat16_on_cpu(inputs: Any) -> bool:
    return trains_on_cpu(inputs) and keras.backend.standardize_dtype(inputs.dtype) == "bfloat16"


def trains_on_cpu(inputs: Any) -> bool:
    """Tell whether the operations that are faster in training on CPU take these inputs."""
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    return _on_tensorflow() and dtype in ("float32", "bfloat16") and not bfloat16.has_gpu()


class VarianceScaling(keras.initializers.VarianceScaling):
    """Keras' initializer, which draws nothing while weights are about to be loaded (see `weights_follow`)."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Return the initial values of a kernel of this shape."""
        return keras.ops.zeros(shape, dtype) if _weights_follow.get() else super().__call__(shape, dtype)


_weights_follow: contextvars.ContextVar[bool] = contextvars.ContextVar("weights_follow", default=False)


@contextlib.contextmanager
def weights_follow(yes: bool = True) -> Iterator[None]:
    """Leave kernels at zero inside, since they will be overwritten: 138 million numbers take a second to draw."""
    token = _weights_follow.set(yes)
    try:
        yield
    finally:
        _weights_follow.reset(token)


class Activation(keras.layers.Activation):
    """Keras' activation, with the exact GELU (arXiv:1606.08415) written so that every converter knows it.

    TensorFlow's own goes through Erfc, which ONNX does not have; x / 2 * (1 + erf(x / sqrt 2)) is the same function.
    In half precision that sum cancels, so that TensorFlow's own stays; exports are made in float32.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the activated inputs."""
        if self.activation is not keras.activations.gelu or not _on_tensorflow():
            return super().call(inputs)
        if training and trains_on_cpu(inputs):
            return kernels.gelu(inputs)
        if keras.backend.standardize_dtype(inputs.dtype) != "float32":
            return super().call(inputs)
        return 0.5 * inputs * (1.0 + keras.ops.erf(inputs * 0.7071067811865476))


class Dense(keras.layers.Dense):
    """Keras' dense layer with DropConnect (Wan et al. 2013): a share of the weights is dropped for each batch.

    Args:
        units: outputs.
        activation: as in Keras.
        drop_connect: share of the kernel's weights set to zero in training, the rest scaled up to make good for it.
        **options: those of keras.layers.Dense.
    """

    def __init__(self, units: int, activation: Any = None, *, drop_connect: float = 0.0, **options: Any) -> None:
        super().__init__(units, activation, **options)
        self.drop_connect = drop_connect
        if drop_connect:
            self.seed_generator = keras.random.SeedGenerator()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the outputs (..., units) of inputs (..., features)."""
        middle = tuple(inputs.shape[1:-1])
        if middle and None not in middle:
            # One matrix product: Keras would compute the shape it returns to in the graph.
            rows = keras.ops.reshape(inputs, (-1, inputs.shape[-1]))
            fused = training and self.use_bias and not self.drop_connect and _in_bfloat16_on_cpu(inputs)
            rows = self._fused(rows) if fused else self.call(rows, training)
            return keras.ops.reshape(rows, (-1, *middle, self.units))
        if not (training and self.drop_connect):
            return super().call(inputs)
        kernel = keras.ops.convert_to_tensor(self.kernel)
        kernel = keras.random.dropout(kernel, self.drop_connect, seed=self.seed_generator)
        return _finished(self, keras.ops.matmul(inputs, keras.ops.cast(kernel, inputs.dtype)))

    def _fused(self, rows: Any) -> Any:
        """Return the outputs (n, units) of many rows (n, features)."""
        weights = (keras.ops.cast(weight, rows.dtype) for weight in (self.kernel, self.bias))
        outputs = kernels.dense(rows, *weights)
        return outputs if self.activation is None else self.activation(outputs)


class LayerNormalization(keras.layers.LayerNormalization):
    """Keras' layer normalization over the last axis, from operations that LiteRT has int8 kernels for.

    Keras multiplies the mean out of the difference, which leaves a negation in the graph.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return inputs (..., channels), normalized."""
        if self.axis not in (-1, [-1], len(inputs.shape) - 1, [len(inputs.shape) - 1]):
            return super().call(inputs)
        plain = self.gamma is not None and self.beta is not None and None not in inputs.shape[1:]
        if training and plain and trains_on_cpu(inputs):
            scale, offset = (keras.ops.cast(weight, "float32") for weight in (self.gamma, self.beta))
            return kernels.layer_norm(inputs, scale, offset, self.epsilon)
        # Half precision has too few digits for a sum of squares.
        x = keras.ops.cast(inputs, "float32")
        x = x - keras.ops.mean(x, axis=-1, keepdims=True)
        variance = keras.ops.mean(keras.ops.square(x), axis=-1, keepdims=True)
        x = x * keras.ops.rsqrt(variance + self.epsilon)
        x = x if self.gamma is None else x * keras.ops.cast(self.gamma, "float32")
        x = x if self.beta is None else x + keras.ops.cast(self.beta, "float32")
        return keras.ops.cast(x, inputs.dtype)


@keras.saving.register_keras_serializable("zoo")
def gelu_tanh(x: Any) -> Any:
    """Return the approximate GELU (arXiv:1606.08415, section 2): x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))."""
    return keras.activations.gelu(x, approximate=True)


@keras.saving.register_keras_serializable("zoo")
class LayerScale(keras.layers.Layer):
    """Multiply each channel by a learnt scale (Touvron et al. 2021, arXiv:2103.17239, equation 6).

    Args:
        initial: what each scale starts at.
        **options: those of keras.layers.Layer.
    """

    def __init__(self, initial: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.initial = initial

    def build(self, input_shape: Any) -> None:
        """Make one scale for each channel."""
        self.gamma = self.add_weight(
            shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.initial), name="gamma"
        )

    def call(self, inputs: Any) -> Any:
        """Return inputs (..., channels), scaled."""
        return inputs * keras.ops.cast(self.gamma, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what makes this layer."""
        return super().get_config() | {"initial": self.initial}


@keras.saving.register_keras_serializable("zoo")
class LocalResponseNormalization(keras.layers.Layer):
    """Divide by what neighbouring channels answer (Krizhevsky et al. 2012, section 3.3).

    y = x / (bias + alpha * sum of x² over 2 * radius + 1 channels) ** beta

    Args:
        radius: neighbours on each side.
        bias: k of the paper.
        alpha: alpha of the paper.
        beta: beta of the paper.
        **options: those of keras.layers.Layer.
    """

    def __init__(
        self, radius: int = 2, bias: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, **options: Any
    ) -> None:
        super().__init__(**options)
        self.radius, self.bias, self.alpha, self.beta = radius, bias, alpha, beta

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return inputs (n, height, width, channels), normalized."""
        fused = keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16")
        if training and fused and _on_tensorflow():
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
        """Return what makes this layer."""
        own = {"radius": self.radius, "bias": self.bias, "alpha": self.alpha, "beta": self.beta}
        return super().get_config() | own


# See the module's docstring: saved as Keras' own, since nothing but the kernel differs.
for _layer in (Activation, BatchNormalization, Conv2D, Dense, DepthwiseConv2D, LayerNormalization):
    _layer.__module__ = "keras.layers"
VarianceScaling.__module__ = "keras.initializers"
