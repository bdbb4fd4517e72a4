"""Dense layers and activations with faster CPU kernels than Keras, and DropConnect. Imports Keras."""

from __future__ import annotations

from typing import Any

import keras

from zoo.layers import fused
from zoo.layers.kernels import add_bias_and_activate, on_tensorflow, trains_in_bfloat16_on_cpu, trains_on_cpu
from zoo.layers.saving import KernelLayer, saved_as_keras


@saved_as_keras("keras.layers")
class Dense(KernelLayer, keras.layers.Dense):
    """Keras' dense layer as one matrix product, also for inputs of more than two axes."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the outputs (..., units) of inputs (..., features)."""
        middle = tuple(inputs.shape[1:-1])
        if not middle or None in middle:
            return self._product(inputs, training)
        # Keras would compute the shape of the outputs in the graph.
        rows = keras.ops.reshape(inputs, (-1, inputs.shape[-1]))
        rows = self._fused(rows) if self._fusible(rows, training) else self._product(rows, training)
        return keras.ops.reshape(rows, (-1, *middle, self.units))

    def _product(self, inputs: Any, training: bool | None) -> Any:
        """Return the outputs by Keras' own kernel."""
        return super().call(inputs)

    def _fusible(self, rows: Any, training: bool | None) -> bool:
        """Return whether the fused kernel supports this call and is faster."""
        return bool(training) and self.use_bias and trains_in_bfloat16_on_cpu(rows)

    def _fused(self, rows: Any) -> Any:
        """Return the outputs (n, units) of many rows (n, features)."""
        weights = (keras.ops.cast(weight, rows.dtype) for weight in (self.kernel, self.bias))
        outputs = fused.dense(rows, *weights)
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable("zoo")
class DropConnectDense(Dense):
    """Dense layer with DropConnect (Wan et al. 2013): training drops a fraction of the weights for each batch.

    Args:
        units: number of outputs.
        activation: as in Keras.
        drop_connect: fraction of the kernel's weights set to zero in training; the others are scaled up to keep the
            expected output.
        seed: seed of the dropped weights; a random one by default.
        **options: options of keras.layers.Dense.
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        *,
        drop_connect: float = 0.5,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(units, activation, **options)
        self.drop_connect, self.seed = drop_connect, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def _product(self, inputs: Any, training: bool | None) -> Any:
        if not training:
            return super()._product(inputs, training)
        kernel = keras.ops.convert_to_tensor(self.kernel)
        kernel = keras.random.dropout(kernel, self.drop_connect, seed=self.seed_generator)
        return add_bias_and_activate(self, keras.ops.matmul(inputs, keras.ops.cast(kernel, inputs.dtype)))

    def _fusible(self, rows: Any, training: bool | None) -> bool:
        return False

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"drop_connect": self.drop_connect, "seed": self.seed}


@saved_as_keras("keras.layers")
class Activation(KernelLayer, keras.layers.Activation):
    """Keras' activation, with the exact GELU (arXiv:1606.08415) from operations that every converter supports.

    TensorFlow's exact GELU uses Erfc, which ONNX lacks; x / 2 * (1 + erf(x / sqrt 2)) is the same function. In half
    precision that sum cancels, so TensorFlow's own is used; exports are in float32.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the activated inputs."""
        if self.activation is not keras.activations.gelu or not on_tensorflow():
            return super().call(inputs)
        if training and trains_on_cpu(inputs):
            return fused.gelu(inputs)
        if keras.backend.standardize_dtype(inputs.dtype) != "float32":
            return super().call(inputs)
        return 0.5 * inputs * (1.0 + keras.ops.erf(inputs * 0.7071067811865476))


@keras.saving.register_keras_serializable("zoo")
def gelu_tanh(x: Any) -> Any:
    """Return the approximate GELU (arXiv:1606.08415, section 2): x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))."""
    return keras.activations.gelu(x, approximate=True)
