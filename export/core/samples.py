"""The samples beside an artifact: test examples, and what its source makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.common.lazy import np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

# Inputs of networks that have more than one are kept under their own names.
SEVERAL = ("source", "target")
# Examples that also go through a free batch one by one, and through a signature for encoded images or texts.
SECOND = 32
# Examples a call where any number may be given, so that memory stays bounded however many are asked for; and how many
# bytes of them a network is given at a time where these are large, whose maps take a hundred times as much.
FEW, BYTES = 32, 4 << 20


def write_samples(samples: dict[str, Any], path: Path) -> None:
    """Write what `export.source.source.open_source` returns beside the source; pixels as uint8, which they are."""
    inputs = samples["inputs"]
    given = inputs if isinstance(inputs, dict) else {"inputs": _small(inputs)}
    rest = {name: value for name, value in samples.items() if name != "inputs"}
    np.savez_compressed(path, **given, **rest)


def _small(inputs: _np.ndarray) -> _np.ndarray:
    return inputs.astype("uint8") if inputs.ndim == 4 else inputs


def read_samples(path: Path) -> dict[str, Any]:
    """Return what was written: inputs as float32 raw values, as int32 ids, or as a dictionary of them."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if "inputs" not in arrays:
        return {"inputs": {name: arrays.pop(name) for name in SEVERAL}} | arrays
    inputs = arrays["inputs"]
    return arrays | {"inputs": inputs.astype("float32") if inputs.dtype == np.uint8 else inputs}


def head(inputs: Any, count: int, first: int = 0) -> Any:
    """Return `count` of the inputs from the one numbered `first`; of each, where there are several."""
    if isinstance(inputs, dict):
        return {name: values[first : first + count] for name, values in inputs.items()}
    return inputs[first : first + count]


def fitting(inputs: Any) -> int:
    """Return how many of these examples at a time leave memory small, at least 2."""
    arrays = inputs.values() if isinstance(inputs, dict) else [inputs]
    size = max(1, sum(array.nbytes for array in arrays) // count_of(inputs))
    return max(2, min(FEW, BYTES // size))


def predicted(model: _keras.Model, inputs: Any) -> _np.ndarray:
    """Return what a model makes of inputs, a few at a time."""
    return model.predict(inputs, batch_size=fitting(inputs), verbose=0)


def in_batches(function: Callable[[Any], _np.ndarray], inputs: Any, size: int | None) -> _np.ndarray:
    """Return what a function makes of any number of examples, called on a few at a time.

    Args:
        function: takes exactly `size` examples, or any number if that is None.
        inputs: the examples.
        size: the last example fills up what is missing; None for a free batch.
    """
    found = []
    for first in range(0, count_of(inputs), size or FEW):
        few = head(inputs, size or FEW, first)
        found.append(function(filled(few, size) if size else few)[: count_of(few)])
    return np.concatenate(found)


def filled(inputs: Any, size: int) -> Any:
    """Return as many inputs as asked for: the last one again and again behind those there are."""
    if isinstance(inputs, dict):
        return {name: filled(values, size) for name, values in inputs.items()}
    missing = size - len(inputs)
    return np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)]) if missing else inputs


def count_of(inputs: Any) -> int:
    """Return how many examples there are."""
    return len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
