"""Layers that are saved as Keras' own layers, so that a `.keras` file opens with Keras alone.

Such a layer computes the same function as the Keras layer that it extends, with a faster kernel and no option or state
of its own. Imports Keras.
"""

from __future__ import annotations

import copyreg
from typing import Any, TypeVar

import keras

C = TypeVar("C", bound=type)

# The classes by name.
CLASSES: dict[str, type] = {}


class KernelType(type(keras.layers.Layer)):
    """Type of the classes that are saved as Keras' own: Keras reads `__module__`, pickle must not."""


def saved_as_keras(module: str) -> Any:
    """Return a decorator for a class that is saved under the name of the Keras class in `module`.

    Args:
        module: "keras.layers" or "keras.initializers".
    """

    def decorate(kind: C) -> C:
        kind.__module__ = module
        CLASSES[kind.__name__] = kind
        return kind

    return decorate


def _class_named(name: str) -> type:
    """Return the class that was pickled."""
    return CLASSES[name]


def _reduce_class(kind: type) -> tuple[Any, ...] | str:
    """Pickle a class by its name here; a subclass elsewhere is pickled by reference."""
    return (_class_named, (kind.__name__,)) if CLASSES.get(kind.__name__) is kind else kind.__qualname__


copyreg.pickle(KernelType, _reduce_class)


class KernelLayer(metaclass=KernelType):
    """Base of the layers that are saved as Keras' own; pickling restores the layer of this zoo."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, super().__reduce__()


def _unpickle(restore: Any, arguments: tuple[Any, ...]) -> Any:
    """Restore a pickled layer as the class of this zoo instead of Keras' own."""
    with keras.saving.custom_object_scope(CLASSES):
        return restore(*arguments)
