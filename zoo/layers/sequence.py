"""Layers for sequences of tokens and for attention, from operations that every converter supports.

Imports Keras: use them through `zoo.layers.lazy.sequence`. All sizes but the batch are static, so that graphs compute
no shapes. Padding is id 0, at the end of a sequence.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from zoo.layers import fused
from zoo.layers.kernels import on_tensorflow, trains_on_cpu

# Bias of a masked score: exp(-1e4) is 0 in every precision, and float16 represents 1e4.
MASKED = -1e4


def _gather(table: Any, ids: Any) -> Any:
    """Return the rows (..., width) of a table for ids (...); Keras would also check for negative ids."""
    if not on_tensorflow():
        return keras.ops.take(table, ids, axis=0)
    import tensorflow as tf

    return tf.gather(tf.convert_to_tensor(table), ids)


def _product(a: Any, b: Any, transpose: bool = False) -> Any:
    """Return the matrix product over the last two axes, the second factor transposed if `transpose`."""
    if not on_tensorflow():
        return keras.ops.matmul(a, keras.ops.swapaxes(b, -1, -2) if transpose else b)
    import tensorflow as tf

    return tf.matmul(a, b, transpose_b=transpose)


@keras.saving.register_keras_serializable("zoo")
class TokenEmbedding(keras.layers.Layer):
    """Embed tokens, and compute logits with the same table (tied weights, Press and Wolf 2016, arXiv:1608.05859).

    Args:
        vocabulary: number of tokens.
        width: length of a vector.
        scaled: multiply vectors by the square root of `width` (Vaswani et al. 2017, section 3.4).
        **options: options of keras.layers.Layer.
    """

    def __init__(self, vocabulary: int, width: int, scaled: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.vocabulary, self.width, self.scaled = vocabulary, width, scaled

    def build(self, input_shape: Any) -> None:
        """Create the table; scaled vectors start at unit length."""
        deviation = self.width**-0.5 if self.scaled else 0.02
        self.embedding = self.add_weight(
            shape=(self.vocabulary, self.width),
            initializer=keras.initializers.RandomNormal(stddev=deviation),
            # Rows are gathered in float32 and cast afterwards: casting the whole table would cost more.
            autocast=False,
            name="embedding",
        )

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        """Return vectors (n, t, width) of ids (n, t), or float32 logits (n, t, vocabulary) of vectors."""
        if reverse:
            return self._logits(inputs)
        vectors = keras.ops.cast(_gather(self.embedding, inputs), self.compute_dtype)
        return vectors * self.width**0.5 if self.scaled else vectors

    def _logits(self, x: Any) -> Any:
        flat = keras.ops.reshape(x, (-1, self.width))
        logits = _product(flat, keras.ops.cast(self.embedding, flat.dtype), transpose=True)
        return keras.ops.cast(keras.ops.reshape(logits, (-1, *x.shape[1:-1], self.vocabulary)), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"vocabulary": self.vocabulary, "width": self.width, "scaled": self.scaled}


@keras.saving.register_keras_serializable("zoo")
class Positions(keras.layers.Layer):
    """Add positional embeddings, learned or sinusoidal (Vaswani et al. 2017, section 3.5).

    Args:
        length: number of positions.
        learned: train the embeddings.
        grid: (rows, columns) of the patches at the last positions, row by row; None if there are none.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, length: int, learned: bool = True, grid: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.length, self.learned, self.grid = length, learned, tuple(grid) if grid else None

    def build(self, input_shape: Any) -> None:
        """Create the table, a weight if it is learned."""
        shape = (self.length, input_shape[-1])
        if self.learned:
            start = keras.initializers.TruncatedNormal(stddev=0.02)
            self.embedding = self.add_weight(shape=shape, initializer=start, name="embedding")
        else:
            self.embedding = sinusoids(*shape)

    def call(self, inputs: Any, at: Any = None) -> Any:
        """Return inputs (n, t, width) plus the embeddings of positions 0 to t - 1.

        Args:
            inputs: a sequence, or with `at` one step of it (n, 1, width).
            at: position of the step, int32 (n,).
        """
        table = keras.ops.cast(self.embedding, inputs.dtype)
        if at is not None:
            return inputs + keras.ops.reshape(_gather(table, at), (-1, 1, inputs.shape[-1]))
        return inputs + (table if inputs.shape[1] == self.length else table[: inputs.shape[1]])

    def resampled(self, table: Any, grid: tuple[int, int] | None = None) -> Any:
        """Return a loaded table (positions, width), resized (bicubic, antialiased) to this layer's grid if it differs.

        Without a grid the first positions are used.

        Args:
            table: the loaded values.
            grid: (rows, columns) of the loaded table; a square by default.
        """
        table = table.reshape(-1, table.shape[-1])
        if self.grid is None:
            return table[: self.length]
        front = self.length - self.grid[0] * self.grid[1]
        side = math.isqrt(max(0, table.shape[0] - front))
        rows, columns = grid or (side, side)
        if self.grid == (rows, columns) or front + rows * columns != table.shape[0]:
            return table
        image = table[front:].reshape(1, rows, columns, -1)
        image = keras.ops.image.resize(
            image, self.grid, interpolation="bicubic", antialias=True, data_format="channels_last"
        )
        return np.concatenate([table[:front], keras.ops.convert_to_numpy(image).reshape(-1, table.shape[1])])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"length": self.length, "learned": self.learned, "grid": self.grid}


def sinusoids(length: int, width: int) -> np.ndarray:
    """Return alternating sines and cosines of each position, float32 (length, width), wavelengths 2 pi to 20,000 pi."""
    angles = np.arange(length)[:, None] / 10_000.0 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)[:, :width].astype("float32")


@keras.saving.register_keras_serializable("zoo")
class TokenTypes(keras.layers.Layer):
    """Add the embedding of a token's type to a sequence (n, t, width): the first type, of a text that is no pair.

    Args:
        count: number of types.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.count = count

    def build(self, input_shape: Any) -> None:
        """Create the table."""
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        self.embedding = self.add_weight(shape=(self.count, input_shape[-1]), initializer=start, name="embedding")

    def call(self, inputs: Any) -> Any:
        """Return the sum (n, t, width)."""
        return inputs + keras.ops.cast(self.embedding[:1], inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"count": self.count}


@keras.saving.register_keras_serializable("zoo")
class Token(keras.layers.Layer):
    """Prepend one learned token to a sequence (n, t, width)."""

    def build(self, input_shape: Any) -> None:
        """Create the token."""
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        self.token = self.add_weight(shape=(1, 1, input_shape[-1]), initializer=start, name="token")

    def call(self, inputs: Any) -> Any:
        """Return the longer sequence (n, t + 1, width)."""
        # Padding and adding needs no batch size, which the graph would have to compute.
        first = keras.ops.pad(self.token, [(0, 0), (0, inputs.shape[1]), (0, 0)])
        return keras.ops.pad(inputs, [(0, 0), (1, 0), (0, 0)]) + keras.ops.cast(first, inputs.dtype)


@keras.saving.register_keras_serializable("zoo")
class TakeToken(keras.layers.Layer):
    """Select one token (n, width) of a sequence (n, t, width).

    Args:
        index: its position.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, index: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.index = index

    def call(self, inputs: Any) -> Any:
        """Return the token (n, width)."""
        return inputs[:, self.index]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"index": self.index}


@keras.saving.register_keras_serializable("zoo")
class First(keras.layers.Layer):
    """Select the first vectors of a sequence.

    Args:
        count: number of vectors.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.count = count

    def call(self, inputs: Any) -> Any:
        """Return (..., count, width) of a sequence (..., t, width)."""
        return inputs[..., : self.count, :]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"count": self.count}


@keras.saving.register_keras_serializable("zoo")
class Ungrid(keras.layers.Layer):
    """Reshape a map of patches to a sequence, row by row."""

    def call(self, inputs: Any) -> Any:
        """Return tokens (n, h * w, width) of a map (n, h, w, width)."""
        _, rows, columns, width = inputs.shape
        return keras.ops.reshape(inputs, (-1, rows * columns, width))


@keras.saving.register_keras_serializable("zoo")
class Grid(keras.layers.Layer):
    """Reshape the last tokens of a sequence, patches row by row, to a map.

    Args:
        rows: number of rows of patches.
        columns: number of columns of patches.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, rows: int, columns: int, **options: Any) -> None:
        super().__init__(**options)
        self.rows, self.columns = rows, columns

    def call(self, inputs: Any) -> Any:
        """Return the map (n, rows, columns, width) of tokens (n, t, width)."""
        patches = inputs[:, inputs.shape[1] - self.rows * self.columns :]
        return keras.ops.reshape(patches, (-1, self.rows, self.columns, inputs.shape[-1]))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"rows": self.rows, "columns": self.columns}


@keras.saving.register_keras_serializable("zoo")
class MeanToken(keras.layers.Layer):
    """Average the tokens of a sequence that are not padding."""

    def call(self, inputs: Any) -> Any:
        """Return means (n, width) of [sequence (n, t, width), bias (n, 1, 1, t) of its padding]."""
        x, bias = inputs
        # The softmax of 0 and minus infinity divides by the count; int8 has no operation for that.
        fraction = keras.ops.softmax(keras.ops.reshape(bias, (-1, 1, x.shape[1])))
        return keras.ops.reshape(_product(keras.ops.cast(fraction, x.dtype), x), (-1, x.shape[-1]))


@keras.saving.register_keras_serializable("zoo")
class UnitVector(keras.layers.Layer):
    """Scale vectors (n, width) to length 1."""

    def call(self, inputs: Any) -> Any:
        """Return the scaled vectors; a zero stays zero."""
        # The mean, not the sum, of squares: LiteRT reads the sum as L2_NORMALIZATION, which has no int8 kernel.
        mean = keras.ops.mean(inputs * inputs, axis=-1, keepdims=True)
        return inputs * (keras.ops.rsqrt(mean + 1e-24) * inputs.shape[-1] ** -0.5)


@keras.saving.register_keras_serializable("zoo")
class PaddingBias(keras.layers.Layer):
    """Bias of the attention scores of a sequence's keys: 0 for tokens, `MASKED` for padding (id 0).

    Args:
        front: number of learned tokens before the sequence, which are never padding.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, front: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.front = front

    def call(self, inputs: Any) -> Any:
        """Return float biases (n, 1, 1, front + t) of ids (n, t)."""
        # int8 supports a lookup in a table of two values, but no comparisons and casts.
        table = keras.ops.convert_to_tensor(np.array([MASKED, 0.0], "float32"))
        bias = _gather(table, keras.ops.minimum(inputs, 1))
        bias = keras.ops.pad(bias, [(0, 0), (self.front, 0)]) if self.front else bias
        return keras.ops.cast(keras.ops.reshape(bias, (-1, 1, 1, bias.shape[1])), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"front": self.front}


@keras.saving.register_keras_serializable("zoo")
class CausalBias(keras.layers.Layer):
    """Bias of the attention scores that masks all later tokens.

    Args:
        length: length of the sequence.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, length: int, **options: Any) -> None:
        super().__init__(**options)
        self.length = length

    def call(self, inputs: Any, at: Any = None) -> Any:
        """Return float biases (1, 1, t, t) for ids (n, t), or (n, 1, 1, t) for the step at positions `at` (n,)."""
        table = np.triu(np.full((self.length, self.length), MASKED, "float32"), k=1)
        bias = table if at is None else _gather(keras.ops.convert_to_tensor(table), at)
        shape = (1, 1, self.length, self.length) if at is None else (-1, 1, 1, self.length)
        return keras.ops.cast(keras.ops.reshape(bias, shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"length": self.length}


@keras.saving.register_keras_serializable("zoo")
class SplitHeads(keras.layers.Layer):
    """Split vectors into parts (queries, keys, values) and each part into heads.

    Args:
        heads: number of heads.
        parts: number of parts.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, heads: int, parts: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.heads, self.parts = heads, parts

    def call(self, inputs: Any) -> Any:
        """Return a list of `parts` tensors (n, heads, t, d) of inputs (n, t, parts * heads * d)."""
        # LiteRT transposes tensors of five axes slowly, so the parts are split first.
        return [self._split(part) for part in keras.ops.split(inputs, self.parts, axis=-1)]

    def _split(self, x: Any) -> Any:
        x = keras.ops.reshape(x, (-1, x.shape[1], self.heads, x.shape[2] // self.heads))
        return keras.ops.transpose(x, (0, 2, 1, 3))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"heads": self.heads, "parts": self.parts}


@keras.saving.register_keras_serializable("zoo")
class AttentionWeights(keras.layers.Layer):
    """Attention weights of queries to keys: softmax(q k^T / sqrt(d) + biases), Vaswani et al. 2017, equation 1."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return weights (n, heads, queries, keys) of [q (n, heads, queries, d), k (n, heads, keys, d), *biases]."""
        q, k, *biases = inputs
        biases, scale = [keras.ops.cast(bias, q.dtype) for bias in biases], q.shape[-1] ** -0.5
        if training and trains_on_cpu(q):
            return fused.attention_weights(q, k, biases, scale)
        scores = _product(q * scale, k, transpose=True)
        for bias in biases:
            scores = scores + bias
        return keras.ops.softmax(scores)


@keras.saving.register_keras_serializable("zoo")
class AttentionValues(keras.layers.Layer):
    """Sum of the values by attention weights, with the heads concatenated."""

    def call(self, inputs: Any) -> Any:
        """Return (n, queries, heads * d) of [weights (n, heads, queries, keys), values (n, heads, keys, d)]."""
        weights, values = inputs
        x = keras.ops.transpose(_product(weights, values), (0, 2, 1, 3))
        return keras.ops.reshape(x, (-1, x.shape[1], x.shape[2] * x.shape[3]))


@keras.saving.register_keras_serializable("zoo")
class Stack(keras.layers.Layer):
    """Stack tensors of one shape."""

    def call(self, inputs: Any) -> Any:
        """Return (n, parts, ...) of a list of tensors (n, ...)."""
        return keras.ops.stack(list(inputs), axis=1)


@keras.saving.register_keras_serializable("zoo")
class Memory(keras.layers.Layer):
    """Mark keys and values of the source sequence, which decoding computes once; the identity function."""

    def call(self, inputs: Any) -> Any:
        """Return the list [keys, values], each (n, heads, t, d)."""
        return list(inputs)


@keras.saving.register_keras_serializable("zoo")
class Cache(keras.layers.Layer):
    """Mark keys and values that decoding caches from step to step; the identity function in training.

    Args:
        length: number of positions.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, length: int, **options: Any) -> None:
        super().__init__(**options)
        self.length = length

    def call(self, inputs: Any, cached: Any = None, at: Any = None) -> Any:
        """Return the list [keys, values].

        Args:
            inputs: [keys, values], each (n, heads, t, d); with the other arguments, those of one step (t = 1).
            cached: keys and values of all steps so far, each (n, heads, length, d).
            at: position of the step, int32 (n,).
        """
        if cached is None:
            return list(inputs)
        # A row of the identity selects the position to write: every converter supports a product and a sum.
        rows = keras.ops.convert_to_tensor(np.eye(self.length, dtype="float32"))
        here = keras.ops.cast(keras.ops.reshape(_gather(rows, at), (-1, 1, self.length, 1)), self.compute_dtype)
        return [old * (1.0 - here) + new * here for old, new in zip(cached, inputs, strict=True)]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"length": self.length}
