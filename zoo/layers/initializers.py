"""Initializers that draw nothing while weights are about to be loaded. Imports Keras."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras

from zoo.layers.saving import KernelType, saved_as_keras

_skip: contextvars.ContextVar[bool] = contextvars.ContextVar("skip_initialization", default=False)


@saved_as_keras("keras.initializers")
class VarianceScaling(keras.initializers.VarianceScaling, metaclass=KernelType):
    """Keras' initializer, except that it returns zeros inside `skip_initialization`."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Return the initial values of a kernel of this shape."""
        return keras.ops.zeros(shape, dtype) if _skip.get() else super().__call__(shape, dtype)


@contextlib.contextmanager
def skip_initialization(skip: bool = True) -> Iterator[None]:
    """Start kernels at zero inside, because loading overwrites them: drawing 138 million numbers takes a second."""
    token = _skip.set(skip)
    try:
        yield
    finally:
        _skip.reset(token)
