"""The memory that a Keras model needs, compared with what is free before it is allocated."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.common import compat
from zoo.common.budgets import HELD, available_memory, option_names, refuse_memory, require_memory
from zoo.common.errors import BadOption

_valueless: contextvars.ContextVar[bool] = contextvars.ContextVar("valueless", default=False)
LARGE = 100_000  # a size from which a model is built once without values first
BYTES = {"float64": 8, "int64": 8, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "bool": 1}  # 4 for others

# Values that the weights of a model may have for each one in its file, and those that it may have in any case: some
# layers store less than they hold.
UNSTORED, STORED_SLACK = 4, 1_000_000


@contextlib.contextmanager
def within_memory(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Refuse a weight of a model that is built inside, before it is allocated, if all of them do not fit into memory.

    Args:
        name: name of the model.
        options: the options that set its size, for the message.

    Raises:
        BadOption: they do not fit.
    """
    available, counted = available_memory(), {True: 0, False: 0}

    def count(layer: Any, shape: tuple[int, ...], dtype: Any) -> None:
        # Those without values count by themselves.
        valueless = _valueless.get()
        counted[valueless] += _bytes(shape, dtype)
        if counted[valueless] > available:
            given = f" with {option_names(options)}" if options else ""
            what = f"{name}{given} (up to its layer {layer.name} with a weight of {' x '.join(map(str, shape))})"
            names = ", ".join(options) if options else "its options"
            refuse_memory(counted[valueless], available, what, f"Lower {names}, or choose a smaller model.")

    with compat.before_weights(count):
        yield


@contextlib.contextmanager
def within_stored(stored: int) -> Iterator[None]:
    """Refuse a weight of a model that is built inside from a file, before it is allocated, if the file has too few.

    Args:
        stored: the number of values in the file.

    Raises:
        ValueError: the weights have many more values.
    """
    allowed, counted = UNSTORED * stored + STORED_SLACK, 0

    def count(layer: Any, shape: tuple[int, ...], _: Any) -> None:
        nonlocal counted
        counted += math.prod(map(int, shape))
        if counted > allowed:
            size = " x ".join(map(str, shape))
            raise ValueError(f"its layer {layer.name} asks for a weight of {size} values, and {stored:,} are stored")

    with compat.before_weights(count):
        yield


def is_large(options: Mapping[str, Any]) -> bool:
    """Return whether a number among the options may make a model that does not fit into memory by itself."""
    values = [each for value in options.values() for each in (value if isinstance(value, (list, tuple)) else [value])]
    return any(isinstance(value, (int, float)) and value >= LARGE for value in values)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Build models inside without the values of their weights, which takes neither time nor memory.

    Errors other than those of options are left to the build that follows.
    """
    token = _valueless.set(True)
    try:
        with compat.without_values():
            yield
    except BadOption:
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return
    finally:
        _valueless.reset(token)


def require_training(model: Any, batch: int, copies: int = 1) -> None:
    """Raise BadOption if a training step of a functional model does not fit into memory.

    Args:
        model: the built model.
        batch: examples of a step in this process.
        copies: copies of the weights that training adds: the gradients and what the optimizer keeps.
    """
    weights = sum(_bytes(tuple(weight.shape), weight.dtype) for weight in model.trainable_weights)
    outputs = output_bytes(model, batch)
    needed = copies * weights + max(max(outputs, default=0), HELD * sum(outputs))
    require_memory(
        needed,
        f"a training step of {model.name} with batches of {batch:,} examples of {_input_shapes(model)}",
        "Lower data.batch_size, data.image_size or data.length, or choose a smaller model.",
    )


def require_inference(model: Any, batch: int) -> None:
    """Raise BadOption if an output of a layer of a functional model does not fit into memory.

    Args:
        model: the built model.
        batch: examples of a call.
    """
    require_memory(
        max(output_bytes(model, batch), default=0),
        f"a call of {model.name} with {batch:,} examples of {_input_shapes(model)}",
        "Lower the sizes of its inputs or of its layers.",
    )


def output_bytes(model: Any, batch: int) -> list[int]:
    """Return the bytes of the outputs of each layer of a functional model, for a batch of examples."""
    if not compat.is_functional(model):
        return []
    tensors = [tensor for node in compat.nodes(model) for tensor in node.output_tensors]
    # Sizes that are free next to the batch count as 1.
    return [batch * _bytes(tuple(size or 1 for size in t.shape[1:]), t.dtype) for t in tensors]


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(map(int, shape)) * BYTES.get(str(dtype), 4)


def _input_shapes(model: Any) -> str:
    return " and ".join(" x ".join(map(str, tensor.shape[1:])) for tensor in model.inputs)
