"""Examples of a user's model: arrays, a dataset, a generator, files, or seeded noise where none are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.samples import joined
from export.source.request import find_images
from training.common.image_files import UnreadableImage
from training.common.preprocess import decode
from training.data.readers.images.checks import read_encoded
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import keras, np, tf
from zoo.reading.arrays import read_npy, read_npz
from zoo.reading.files import Refusal
from zoo.specs.preprocessing import PreprocessingConfig

if TYPE_CHECKING:
    import numpy as _np

# Examples to calibrate on, to compare on, and to compare on where there are labels.
CALIBRATED, COMPARED, LABELED = 200, 64, 800
SEED = 0
FREE = 64  # of noise, along an axis of free size
TOKENS = 2  # of an integer input that no embedding reads
REFUSAL = Refusal("Expected examples in a .npy or .npz file", DataError, "Correct the file, or name another one.")
KINDS = (
    "arrays, a tf.data.Dataset, a generator of batches, a folder of images, a .npy file, or a .npz file with an array "
    "for each input"
)


def collect(data: Any, inputs: int) -> tuple[Any, Any]:
    """Return examples in memory as a list of arrays in the order of the inputs, or by name, and their labels or None.

    Args:
        data: an array; a list or a dictionary of arrays for several inputs; a pair (examples, labels) of these; or an
            iterable of batches of any of them, of which as many are taken as are needed.
        inputs: the number of inputs of the model.

    Raises:
        DataError: there are no examples, or their numbers differ.
    """
    if not _is_batch(data) and isinstance(data, Iterable):
        batches = [_split_labels(_arrays(batch), inputs) for batch in _enough(data)]
        if not batches:
            raise DataError("calibration must have examples. Received: an empty dataset.")
        examples = _join([found for found, _ in batches])
        labels = None if batches[0][1] is None else np.concatenate([labels for _, labels in batches])
    else:
        examples, labels = _split_labels(_arrays(data), inputs)
    _check_counts(examples, labels)
    return examples, labels


def _is_batch(data: Any) -> bool:
    """Return whether data are examples themselves, no iterable of batches."""
    if isinstance(data, (list, tuple)):
        return all(map(_is_batch, data)) and bool(data)
    return isinstance(data, Mapping) or hasattr(data, "__array__")


def _enough(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches until there are enough examples."""
    count = 0
    for batch in batches:
        yield batch
        first = keras.tree.flatten(batch)[0]
        count += len(first)
        if count >= CALIBRATED + LABELED:
            return


def _arrays(data: Any) -> Any:
    return keras.tree.map_structure(np.asarray, data)


def _split_labels(data: Any, inputs: int) -> tuple[Any, Any]:
    """Return examples and labels of a pair; labels are None where there is no pair."""
    is_pair = isinstance(data, tuple) and len(data) in (2, 3)
    if not is_pair or (inputs == len(data) and all(hasattr(part, "shape") for part in data)):
        return _listed(data), None
    labels = data[1]
    return _listed(data[0]), labels if hasattr(labels, "shape") else None


def _listed(data: Any) -> Any:
    """Return arrays by name, or a list of them."""
    if isinstance(data, Mapping):
        return dict(data)
    return list(data) if isinstance(data, (list, tuple)) else [data]


def _join(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], dict):
        return joined(parts)
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _check_counts(examples: Any, labels: Any) -> None:
    arrays = list(examples.values()) if isinstance(examples, dict) else examples
    counts = {len(array) if array.ndim else 0 for array in (*arrays, *([] if labels is None else [labels]))}
    if len(counts) != 1 or counts == {0}:
        raise DataError(f"calibration must have the same number of each input and label. Received: {sorted(counts)}.")


def by_input(examples: Any, inputs: Mapping[str, Any], received: str = "calibration") -> Any:
    """Return examples as a model takes them: an array, or arrays by the names of several inputs.

    Args:
        examples: a list of arrays in the order of the inputs, or arrays by name.
        inputs: the symbolic inputs by name.
        received: what to name in an error.

    Raises:
        DataError: they do not fit the inputs.
    """
    names = list(inputs)
    found = examples if isinstance(examples, dict) else dict(zip(names, examples, strict=False))
    extra = not isinstance(examples, dict) and len(examples) != len(names)
    if found.keys() != set(names) or extra:
        given = ", ".join(found) if isinstance(examples, dict) else f"{len(examples)} arrays"
        raise DataError(f"Expected examples for the inputs {', '.join(names)}. Received: {received} with {given}.")
    arrays = {name: _fitting(found[name], inputs[name], name, received) for name in names}
    return arrays if len(arrays) > 1 else arrays[names[0]]


def _fitting(array: _np.ndarray, tensor: Any, name: str, received: str) -> _np.ndarray:
    """Return examples of one input in its dtype."""
    shape = tuple(tensor.shape[1:])
    if len(shape) == array.ndim and shape[-1:] == (1,):
        array = array[..., None]
    fits = array.ndim == len(shape) + 1 and all(
        size in (None, own) for size, own in zip(shape, array.shape[1:], strict=False)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise DataError(f"Examples of {name} must have the shape (n, {sizes}). Received: {received} of {array.shape}.")
    if tensor.dtype == "string":
        return array.astype(str)
    if array.dtype.kind not in "biuf" and str(array.dtype) != "bfloat16":
        raise DataError(f"Examples of {name} must be numbers. Received: {received} of {array.dtype}.")
    values = array.astype(tensor.dtype)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"Examples of {name} must be finite. Received: {received} with NaN or infinity.")
    return values


def read_examples(path: Path, inputs: Mapping[str, Any]) -> Any:
    """Return the examples of a file or of a folder of images; see `by_input`.

    Raises:
        DataError: they cannot be read, or do not fit the inputs.
    """
    received = f"calibration={str(path)!r}"
    if path.is_dir():
        return by_input([_images(path, inputs)], inputs, received)
    if path.suffix == ".npz":
        arrays = read_npz(path, REFUSAL)
        return by_input(list(arrays.values()) if len(arrays) == len(inputs) == 1 else arrays, inputs, received)
    if path.suffix == ".npy":
        return by_input([read_npy(path, REFUSAL)], inputs, received)
    raise DataError(f"calibration must be {KINDS}. Received: {received}.")


def _images(path: Path, inputs: Mapping[str, Any]) -> _np.ndarray:
    """Return images of a folder, scaled and cropped to the size of the only input, float32 from 0 to 255."""
    (tensor,) = inputs.values() if len(inputs) == 1 else (None,)
    shape = () if tensor is None else tuple(tensor.shape[1:])
    if len(shape) != 3 or None in shape or shape[-1] not in (1, 3, 4):
        raise DataError(
            f"A folder of images is for a model of one input (height, width, channels). Received: {str(path)!r} for "
            f"{shape or tuple(inputs)}. Pass a .npy or .npz file."
        )
    paths = find_images(path)
    chosen = [paths[i] for i in np.random.default_rng(SEED).permutation(len(paths))[: CALIBRATED + COMPARED]]
    return np.stack([_decoded(file, shape) for file in chosen])


def _decoded(path: Path, shape: tuple[int, ...]) -> _np.ndarray:
    try:
        return decode(read_encoded(path, DataConfig().max_pixels), shape, PreprocessingConfig()).numpy()
    except (tf.errors.InvalidArgumentError, OSError, UnreadableImage) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"Expected an image that can be decoded. Received: {path}: {reason}") from error


def noise(inputs: Mapping[str, Any], limits: Sequence[float] | None, tokens: Mapping[str, int]) -> Any:
    """Return seeded examples for inputs that nothing is known of.

    Args:
        inputs: the symbolic inputs by name.
        limits: the smallest and largest value of float inputs; normal noise if None.
        tokens: the number of tokens of integer inputs.
    """
    rng, found = np.random.default_rng(SEED), {}
    for name, tensor in inputs.items():
        shape = (2 * COMPARED, *(FREE if size is None else size for size in tensor.shape[1:]))
        if tensor.dtype == "string":
            found[name] = _texts(shape, rng)
        elif "float" in tensor.dtype:
            found[name] = (rng.normal(size=shape) if limits is None else rng.uniform(*limits, size=shape)).astype(
                tensor.dtype
            )
        else:
            found[name] = rng.integers(0, tokens.get(name, TOKENS), shape).astype(tensor.dtype)
    return found if len(found) > 1 else next(iter(found.values()))


def _texts(shape: Sequence[int], rng: Any) -> _np.ndarray:
    words = np.array(["a", "model", "is", "exported", "and", "verified", "in", "every", "runtime"])
    drawn = words[rng.integers(0, len(words), (*shape, 8))]
    return np.array([" ".join(row) for row in drawn.reshape(-1, 8)]).reshape(shape)
