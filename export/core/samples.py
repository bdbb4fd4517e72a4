"""The samples in an artifact's folder: test examples and the source model's predictions on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.common.lazy import np
from zoo.reading.arrays import read_npz
from zoo.reading.files import Refusal, reading

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

# Inputs of sequence-to-sequence models.
SEQUENCE_INPUTS = ("source", "target")
# The inputs and the source model's outputs; the name of one of several follows a slash.
INPUTS, LOGITS = "inputs", "logits"
# The kinds of dtypes of each array, as `numpy.dtype.kind`; others are texts.
KINDS = {"inputs": "iufU", "logits": "f", "labels": "iuf", "valid": "b", "tokens": "iu"}
REFUSAL = Refusal("Expected the samples of an artifact", advice="Export again.")
FEWEST = 8  # examples to compare on, where others are to calibrate on
# Examples that are compared a second time: one by one through a dynamic batch, and through a signature for encoded
# images, for texts or for rows of a table.
SECOND_PASS = 32
# Examples a call where the batch is dynamic, which bounds memory; of large examples as many as have so many bytes, for
# their feature maps take a hundred times as much.
CALL_EXAMPLES, CALL_BYTES = 32, 4 << 20


def write_samples(samples: dict[str, Any], path: Path) -> None:
    """Write the samples that `export.source.run_source.open_run_source` returns; pixels as uint8."""
    arrays = {**_named(INPUTS, samples[INPUTS], _compact), **_named(LOGITS, samples[LOGITS])}
    rest = {name: value for name, value in samples.items() if name not in (INPUTS, LOGITS)}
    np.savez_compressed(path, **arrays, **rest)


def _named(kind: str, values: Any, change: Callable[[Any], Any] = lambda value: value) -> dict[str, Any]:
    """Return the arrays of a kind as they are stored: under its name, or those of several with theirs too."""
    if isinstance(values, dict):
        return {f"{kind}/{name}": change(value) for name, value in values.items()}
    return {kind: change(values)}


def _compact(inputs: _np.ndarray) -> _np.ndarray:
    """Return pixels as uint8, if that changes none."""
    if inputs.ndim != 4 or inputs.dtype.kind != "f":
        return inputs
    pixels = inputs.astype("uint8")
    return pixels if np.array_equal(pixels, inputs) else inputs


def read_samples(path: Path) -> dict[str, Any]:
    """Return the samples of a file: inputs as float32 raw values, int32 ids, or a dictionary of ids by input.

    The logits of several targets are a dictionary by output.

    Raises:
        RunError: the file is damaged, or its arrays do not fit each other.
    """
    with reading(path, REFUSAL):
        arrays: dict[str, Any] = read_npz(path, REFUSAL)
        _check(arrays)
    for kind in (INPUTS, LOGITS):
        named = {name: arrays.pop(name) for name in list(arrays) if name.startswith(f"{kind}/")}
        if named:
            arrays[kind] = {name.partition("/")[2]: value for name, value in named.items()}
    inputs = arrays[INPUTS]
    raw = {name: _raw(value) for name, value in inputs.items()} if isinstance(inputs, dict) else _raw(inputs)
    return arrays | {INPUTS: raw}


def _raw(inputs: _np.ndarray) -> _np.ndarray:
    """Return stored pixels as the raw values that they are, float32; other inputs as they are."""
    return inputs.astype("float32") if inputs.dtype == np.uint8 else inputs


def _check(arrays: Mapping[str, Any]) -> None:
    """Raise ValueError unless arrays are the samples of `write_samples`."""
    inputs, outputs = ([name for name in arrays if name.partition("/")[0] == kind] for kind in (INPUTS, LOGITS))
    for kind, found in ((INPUTS, inputs), (LOGITS, outputs)):
        if not found:
            raise ValueError(f"it has no {kind}")
    for name in outputs:
        logits = arrays[name]
        if logits.dtype.kind != "f" or logits.ndim < 1 or not logits.size or not np.isfinite(logits).all():
            raise ValueError(f"{name[:100]} must be finite numbers of the shape (n, …)")
    count = len(arrays[outputs[0]])
    for name, array in arrays.items():
        if array.ndim < 1 or (len(array) != count and array.dtype.kind != "U"):
            raise ValueError(f"{name[:100]} must have {count} examples, as many as the logits")
        if array.dtype.kind not in KINDS.get(name.partition("/")[0], "U"):
            raise ValueError(f"{name[:100]} must not be of {array.dtype}")
    if outputs == [LOGITS]:
        _check_labels(arrays, arrays[LOGITS])


def _check_labels(arrays: Mapping[str, Any], logits: _np.ndarray) -> None:
    """Raise ValueError for labels and the like that have not one value for each prediction or logit."""
    predictions, labels = logits.shape[:-1], arrays.get("labels")
    if labels is not None and labels.shape not in (predictions, logits.shape):
        raise ValueError(f"labels must have the shape {predictions} or {logits.shape}, not {labels.shape}")
    if "valid" in arrays and arrays["valid"].shape != predictions:
        raise ValueError(f"valid must have the shape {predictions}, not {arrays['valid'].shape}")
    if "tokens" in arrays and arrays["tokens"].ndim != 2:
        raise ValueError(f"tokens must have the shape (n, length), not {arrays['tokens'].shape}")


def take_examples(inputs: Any, count: int, first: int = 0) -> Any:
    """Return `count` of the inputs from number `first` on; of each input if there are several."""
    if isinstance(inputs, dict):
        return {name: values[first : first + count] for name, values in inputs.items()}
    return inputs[first : first + count]


def split_examples(examples: Any, most: int) -> tuple[Any, Any]:
    """Return examples in two parts, the second of at most `most`; if there are few, both have all of them."""
    count = count_examples(examples)
    second = min(most, count // 2)
    if second < FEWEST:
        return examples, examples
    return take_examples(examples, count - second), take_examples(examples, second, count - second)


def examples_per_call(inputs: Any) -> int:
    """Return how many of these examples to compute at a time, at least 2, so that memory stays small."""
    arrays = inputs.values() if isinstance(inputs, dict) else [inputs]
    size = max(1, sum(array.nbytes for array in arrays) // count_examples(inputs))
    return max(2, min(CALL_EXAMPLES, CALL_BYTES // size))


def predict_in_batches(model: _keras.Model, inputs: Any) -> Any:
    """Return the predictions of a Keras model, by name if there are several, computed a few examples at a time."""
    return model.predict(inputs, batch_size=examples_per_call(inputs), verbose=0)


def joined(parts: Sequence[Any]) -> Any:
    """Return the outputs of consecutive examples as one array, or one for each name."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def in_batches(function: Callable[[Any], Any], inputs: Any, size: int | None) -> Any:
    """Return the outputs of a function for any number of examples, called on a few at a time.

    Args:
        function: takes exactly `size` examples, or any number if that is None.
        inputs: the examples.
        size: the batch size; the last batch is padded with its last example. None for a dynamic batch.
    """
    outputs = []
    for first in range(0, count_examples(inputs), size or CALL_EXAMPLES):
        batch = take_examples(inputs, size or CALL_EXAMPLES, first)
        found = function(pad_batch(batch, size) if size else batch)
        outputs.append(take_examples(found, count_examples(batch)))
    return joined(outputs)


def pad_batch(inputs: Any, size: int) -> Any:
    """Return a batch of exactly `size` examples: the last one is repeated."""
    if isinstance(inputs, dict):
        return {name: pad_batch(values, size) for name, values in inputs.items()}
    missing = size - len(inputs)
    return np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)]) if missing else inputs


def count_examples(inputs: Any) -> int:
    """Return the number of examples."""
    return len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
