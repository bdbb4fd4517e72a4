"""Muon (Jordan et al. 2024, arXiv:2502.16982) for convolution kernels too."""

from __future__ import annotations

import functools
import math
from typing import Any

from training.common.compat import APPLY_WEIGHT_DECAY, USE_ADAMW, decoupled_decay
from zoo.common.lazy import keras, tf


@functools.cache
def muon() -> Any:
    """Return a subclass of keras.optimizers.Muon that also orthogonalizes convolution kernels.

    Keras' class updates them with AdamW. Here, as in the authors' code, a kernel (height, width, in, out) is the matrix
    (height x width x in, out). Muon updates dense and convolution kernels; AdamW updates all else with the same rate:
    biases, norms, embedding tables, depthwise kernels, which are no matrix, and the classifier.
    """
    base = keras.optimizers.Muon

    def use_adamw(_self: Any, variable: Any) -> bool:
        matrix = _matrix(variable.shape)
        return matrix is None or min(matrix) < 2 or _is_excluded(variable)

    def apply_weight_decay(self: Any, variables: Any) -> None:
        """Apply one decay to all; Keras' Muon has two, and its assignment fails under a strategy of several devices."""
        decoupled_decay()(self, variables)

    def orthogonalize(self: Any, x: Any, steps: int) -> Any:
        """Return the nearest orthogonal matrix, as a kernel."""
        matrix = base.zeropower_via_newtonschulz5(self, tf.reshape(x, _matrix(x.shape)), steps)
        return tf.reshape(matrix, x.shape)

    def lr_adjust(self: Any, x: Any) -> Any:
        """Scale an update to the mean square of Adam's."""
        return x if self.rms_rate is None else x * (math.sqrt(max(_matrix(x.shape))) * self.rms_rate)

    members = {"zeropower_via_newtonschulz5": orthogonalize, "lr_adjust": lr_adjust}
    members |= {USE_ADAMW: use_adamw, APPLY_WEIGHT_DECAY: apply_weight_decay}
    return type("Muon", (base,), {"__doc__": "Muon for dense and convolution kernels.", **members})


def _matrix(shape: Any) -> tuple[int, int] | None:
    """Return the shape of a kernel as a matrix, None if it is none."""
    if len(shape) not in (2, 4):
        return None
    return math.prod(shape[:-1]), int(shape[-1])


def _is_excluded(variable: Any) -> bool:
    path = variable.path.lower()
    return not path.endswith("kernel") or "embedding" in path or "logits" in path
