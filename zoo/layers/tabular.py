"""Layers for the columns of tables: embeddings of numbers and categories, scaled features, parametric activations.

Imports Keras: use them through `zoo.layers.lazy.tabular`. All of them are from Holzmüller, Grinsztajn and Steinwart
2024 (arXiv:2407.04491). There, some weights have a learning rate of their own, a factor on that of the others. Adam
moves a weight by its learning rate, however large its gradient is; so a weight is stored divided by its factor here.
"""

from __future__ import annotations

import math
from typing import Any

import keras

# Factors on the learning rate of embeddings, biases and activations, and of the scale of features (section 3.2).
SLOW, FAST = 0.1, 6.0
# Numbers are clipped smoothly to this many times their unit (section 3.1).
CLIP = 3.0
# Categories with a value of their own; more of them are embedded in this many values.
FEW, EMBEDDED = 9, 8
# Frequencies of a number, and the values of its embedding with the number itself.
FREQUENCIES, VALUES = 16, 4


def _normal(deviation: float) -> Any:
    return keras.initializers.RandomNormal(stddev=deviation)


def waves_initializer(sigma: float) -> Any:
    """Return the initializer of frequencies with a standard deviation."""
    return _normal(sigma / SLOW)


def _uniform(limit: float) -> Any:
    return keras.initializers.RandomUniform(-limit, limit)


def _parts(columns: tuple[int, ...], width: int) -> list[tuple[int, int]]:
    """Return the start and the size of each column of a vector; a size of 0 for a number."""
    found, start = [], 0
    for size in columns or (width,):
        found += [(start + place, 0) for place in range(size)] if size > 0 else [(start, -size)]
        start += abs(size)
    return found


@keras.saving.register_keras_serializable("zoo")
class ColumnEmbedding(keras.layers.Layer):
    """Embed the columns of a table.

    A number x becomes (z, v) with z = x / sqrt(1 + (x / 3)²) and v = W cos(2 pi w z + b) + c, the embedding "PBLD" of
    the paper. At most `FEW` categories stay one-hot, more of them are multiplied by a table, so that none of them, an
    unknown category, is embedded as 0.

    Args:
        columns: the parts of a vector in their order: n for n numbers, -n for a column of n values that are 0 or 1.
            () for numbers alone.
        frequencies_initializer: initializer of the frequencies w, divided by `SLOW`; of a deviation of 0.1 by default.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, columns: tuple[int, ...] = (), frequencies_initializer: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.columns = tuple(columns)
        self.frequencies_initializer = keras.initializers.get(frequencies_initializer or waves_initializer(0.1))

    def build(self, input_shape: Any) -> None:
        """Create the weights of all numbers at once, and a table for each column with many categories."""
        parts = _parts(self.columns, input_shape[-1])
        self.numbers = [start for start, size in parts if not size]
        self.few = [place for start, size in parts if 0 < size <= FEW for place in range(start, start + size)]
        self.many = [(start, size) for start, size in parts if size > FEW]
        self.tables = [
            self.add_weight((size, EMBEDDED), _normal(1.0), name=f"embedding{number}")
            for number, (_, size) in enumerate(self.many, start=1)
        ]
        if not self.numbers:
            return
        count, limit = len(self.numbers), FREQUENCIES**-0.5 / SLOW
        self.frequencies = self.add_weight((count, FREQUENCIES), self.frequencies_initializer, name="frequencies")
        self.phases = self.add_weight((count, FREQUENCIES), _uniform(math.pi / SLOW), name="phase_bias")
        self.mixture = self.add_weight((count, FREQUENCIES, VALUES - 1), _uniform(limit), name="mixture")
        self.offsets = self.add_weight((count, VALUES - 1), _uniform(limit), name="mixture_bias")

    def call(self, inputs: Any) -> Any:
        """Return the embedded vectors (n, values) of vectors (n, features)."""
        found = [self._numbers(_columns(inputs, self.numbers))] if self.numbers else []
        found += [_columns(inputs, self.few)] if self.few else []
        for (start, size), table in zip(self.many, self.tables, strict=True):
            found.append(keras.ops.matmul(inputs[:, start : start + size], keras.ops.cast(table, inputs.dtype)))
        return keras.ops.concatenate(found, axis=-1) if len(found) > 1 else found[0]

    def _numbers(self, x: Any) -> Any:
        """Return the values (n, 4 numbers) of numbers (n, numbers)."""
        ops, dtype, count = keras.ops, x.dtype, len(self.numbers)
        frequencies, phases, mixture, offsets = (
            ops.cast(SLOW * ops.convert_to_tensor(weight), dtype)
            for weight in (self.frequencies, self.phases, self.mixture, self.offsets)
        )
        z = ops.reshape(x / ops.sqrt(1.0 + ops.square(x / CLIP)), (-1, count, 1))
        waves = ops.cos(z * (2.0 * math.pi * frequencies) + phases)
        # Sums instead of a product of matrices for each number, which ONNX Runtime cannot quantize.
        mixed = ops.stack([ops.sum(waves * mixture[:, :, i], axis=-1) for i in range(VALUES - 1)], axis=-1) + offsets
        return ops.reshape(ops.concatenate([z, mixed], axis=-1), (-1, VALUES * count))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """Return (n, values)."""
        sizes = [size for _, size in _parts(self.columns, input_shape[-1])]
        return input_shape[0], sum(EMBEDDED if size > FEW else size or VALUES for size in sizes)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        initializer = keras.initializers.serialize(self.frequencies_initializer)
        return super().get_config() | {"columns": list(self.columns), "frequencies_initializer": initializer}


def _columns(inputs: Any, places: list[int]) -> Any:
    """Return some values (n, places) of vectors."""
    if places == list(range(inputs.shape[-1])):
        return inputs
    return keras.ops.take(inputs, keras.ops.convert_to_tensor(places, "int32"), axis=-1)


@keras.saving.register_keras_serializable("zoo")
class FeatureScale(keras.layers.Layer):
    """Multiply each feature by a weight that starts at 1 and learns faster than others, and all of them by a number.

    Args:
        gain: the number.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, gain: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.gain = gain

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        start = keras.initializers.Constant(1.0 / FAST)
        self.scale = self.add_weight((input_shape[-1],), start, name="scale")

    @property
    def factors(self) -> Any:
        """Return what each feature is multiplied by (features,)."""
        return self.gain * FAST * keras.ops.convert_to_tensor(self.scale)

    def call(self, inputs: Any) -> Any:
        """Return the scaled features (n, features)."""
        return inputs * keras.ops.cast(self.factors, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"gain": self.gain}


@keras.saving.register_keras_serializable("zoo")
class ParametricActivation(keras.layers.Layer):
    """Add a bias b, activate, and mix with the input: gain (u + a (f(u) - u)) with u = x + b, all by feature.

    Args:
        activation: the Keras activation f.
        gain: a number that multiplies the outputs.
        **options: options of keras.layers.Layer.
    """

    def __init__(self, activation: Any, gain: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.activation, self.gain = keras.activations.get(activation), gain

    def build(self, input_shape: Any) -> None:
        """Create a bias, drawn from a normal distribution, and a weight of 1 for each feature."""
        self.bias = self.add_weight((input_shape[-1],), _normal(1.0 / SLOW), name="bias")
        self.weight = self.add_weight((input_shape[-1],), keras.initializers.Constant(1.0 / SLOW), name="weight")

    def call(self, inputs: Any) -> Any:
        """Return the activated features (n, features)."""
        bias, weight = (
            keras.ops.cast(SLOW * keras.ops.convert_to_tensor(value), inputs.dtype)
            for value in (self.bias, self.weight)
        )
        u = inputs + bias
        return self.gain * (u + weight * (self.activation(u) - u))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        activation = keras.activations.serialize(self.activation)
        return super().get_config() | {"activation": activation, "gain": self.gain}
