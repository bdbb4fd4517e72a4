"""SGD with momentum with TensorFlow's fused kernel."""

from __future__ import annotations

import functools
from typing import Any

from training.common.compat import variable_index
from zoo.common.lazy import keras, tf


@functools.cache
def fused_sgd() -> Any:
    """Return a subclass of keras.optimizers.SGD that computes a momentum step in one operation.

    The formula is Keras'. Keras takes seven operations, each of which reads and writes all weights; with the fused
    one, ResourceApplyKerasMomentum, ResNet-50 in bfloat16 on CPU trains 6% more images/s. Plain SGD, sparse gradients
    and weights other than float32 use Keras' step.
    """

    class SGD(keras.optimizers.SGD):
        """SGD with a fused momentum step."""

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Update one variable: m = momentum * m - rate * g; then w += m, or momentum * m - rate * g by Nesterov."""
            if not self.momentum or not isinstance(gradient, tf.Tensor) or variable.dtype != tf.float32:
                super().update_step(gradient, variable, learning_rate)
                return
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle,
                # Under a strategy both handles belong to the device that is updated.
                accum=self.momentums[variable_index(self, variable)].value.handle,
                lr=tf.cast(learning_rate, tf.float32),
                grad=tf.cast(gradient, tf.float32),
                momentum=tf.constant(self.momentum, tf.float32),
                use_nesterov=self.nesterov,
            )

    return SGD
