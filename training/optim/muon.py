"""Muon (Jordan et al. 2024, arXiv:2502.16982) for convolutions too."""

from __future__ import annotations

import functools
import math
from typing import Any

from zoo.common.lazy import keras, tf


@functools.cache
def muon() -> Any:
    """Return a class like keras.optimizers.Muon that also orthogonalizes the kernels of convolutions.

    Keras' class leaves them to AdamW. Here, as in the authors' code, a kernel (height, width, in, out) is the matrix
    (height x width x in, out); dense and convolutional kernels move by Muon, and all else by AdamW with the same rate:
    biases, norms, tables of embeddings, depthwise kernels, which are no matrix, and the classifier.
    """
    base = keras.optimizers.Muon

    class Muon(base):
        """Muon that knows convolutions."""

        def _should_use_adamw(self, variable: Any) -> bool:
            matrix = _matrix(variable.shape)
            return matrix is None or min(matrix) < 2 or _excluded(variable)

        def _apply_weight_decay(self, variables: Any) -> None:
            """One decay for all; Keras' own has two, and assigns as no strategy of several devices allows."""
            plain(self, variables)

        def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
            """Return the nearest orthogonal matrix, as a kernel."""
            return tf.reshape(super().zeropower_via_newtonschulz5(tf.reshape(x, _matrix(x.shape)), steps), x.shape)

        def lr_adjust(self, x: Any) -> Any:
            """Scale an update so that its mean square is that of Adam's."""
            return x if self.rms_rate is None else x * (math.sqrt(max(_matrix(x.shape))) * self.rms_rate)

    # The way of all other optimizers, which Keras' Muon overrides.
    plain = keras.optimizers.Adam._apply_weight_decay
    return Muon


def _matrix(shape: Any) -> tuple[int, int] | None:
    """Return the shape of a kernel as a matrix, None if it is none."""
    if len(shape) not in (2, 4):
        return None
    return math.prod(shape[:-1]), int(shape[-1])


def _excluded(variable: Any) -> bool:
    path = variable.path.lower()
    return not path.endswith("kernel") or "embedding" in path or "logits" in path
