"""A model of the registry as formats see it, and examples for it: a user's images or rows, or seeded noise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from export.core.samples import count_of, predicted
from export.source.origin import FILE, FOLDER, RANDOM, ModelRequest
from export.source.source import CALIBRATION, SAMPLE_BYTES, Source
from training.common.preprocess import decode
from zoo.build import dtype_policy
from zoo.common.errors import DataError
from zoo.common.lazy import keras, np, tf
from zoo.decoding import greedy
from zoo.specs.text import END, PADDING, START

if TYPE_CHECKING:
    import numpy as _np

SEED = 0
# Examples that artifacts are compared on; of networks above so many billion multiply-adds, which take a second each in
# formats without fast kernels; of networks that write; and at least.
COMPARED, HEAVY, FEWER, WRITTEN, LEAST = 64, 1.0, 32, 16, 8
# Noise of one pixel averages out in a network; these are the sides of its coarser patches, as shares of an image.
PATCHES = (1, 4, 16)


def open_model(request: ModelRequest, scratch: Path) -> tuple[Source, dict[str, Any]]:
    """Build a model of the registry.

    Args:
        request: which, with which weights and examples.
        scratch: folder for what formats share.

    Returns:
        What `export.source.source.open_source` returns; the samples have no labels, which nobody knows, but of ids "real",
        which are none of padding.

    Raises:
        ZooError: the weights do not fit, or the examples cannot be read.
    """
    keras.utils.set_random_seed(SEED)
    with dtype_policy("float32"):
        weights = None if request.weights == RANDOM else request.weights
        network = zoo.get(request.name, weights=weights, **request.options)
    calibration, compared = _examples(request)
    source = Source(network, request.spec.preprocessing, request.labels, lambda: calibration, scratch)
    samples = {"inputs": compared, "logits": predicted(source.model, compared)}
    if source.task == "generate":
        samples["tokens"] = np.asarray(greedy(source.written_by, keras.ops.convert_to_tensor(compared["source"])))
    if source.task in ("generate", "tag"):
        samples["real"] = (compared["target"] if source.task == "generate" else compared) != PADDING
    return source, samples


def _examples(request: ModelRequest) -> tuple[Any, Any]:
    """Return examples to calibrate on and to compare on, which are others if there are enough."""
    draw = np.random.default_rng(SEED)
    most = FEWER if request.spec.gmacs > HEAVY else WRITTEN if request.spec.task == "generate" else COMPARED
    most = max(LEAST, min(most, SAMPLE_BYTES // math.prod(request.shape)))
    if request.samples == FOLDER:
        paths = request.images()
        chosen = [paths[i] for i in draw.permutation(len(paths))[: CALIBRATION + most]]
        found: Any = _decoded(request, chosen)
    elif request.samples == FILE:
        found = _rows(request)
        found = found[draw.permutation(len(found))[: CALIBRATION + most]]
    else:
        found = _noise(request, 2 * most, draw)
    return _divided(found, most)


def _divided(found: Any, most: int) -> tuple[Any, Any]:
    """Return the examples in two halves, the second of at most so many; both all of them where they are few."""
    if isinstance(found, dict):
        halves = {name: _divided(values, most) for name, values in found.items()}
        return tuple({name: half[side] for name, half in halves.items()} for side in (0, 1))
    second = min(most, count_of(found) // 2)
    return (found, found) if second < LEAST else (found[:-second], found[-second:])


def _decoded(request: ModelRequest, paths: Sequence[Path]) -> _np.ndarray:
    """Return images as the network's contract has them, float32 (n, height, width, channels)."""
    spec, images = request.spec, []
    if spec.inputs != ("image",):
        raise DataError(
            f"{spec.name} takes {spec.inputs[0]}, no images. Received: calibrate={request.calibrate!r}. "
            "Name a .npy or .csv file of examples."
        )
    for path in paths:
        try:
            images.append(decode(path.read_bytes(), request.shape, spec.preprocessing).numpy())
        except (tf.errors.InvalidArgumentError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(f"Expected an image that can be decoded. Received: {path}: {reason}") from error
    return np.stack(images)


def _rows(request: ModelRequest) -> _np.ndarray:
    """Return the examples of a .npy file (n, *shape), or of a .csv file with one line of headings."""
    path, spec = Path(request.calibrate), request.spec
    wanted = request.shape
    if spec.task == "generate":
        raise DataError(f"{spec.name} is calibrated on seeded ids. Received: calibrate={str(path)!r}. Leave it out.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = (
                np.load(path, allow_pickle=False)
                if path.suffix == ".npy"
                else np.genfromtxt(path, delimiter=",", skip_header=1, ndmin=2)
            )
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"Expected examples in a .npy or .csv file. Received: {path}: {reason}") from error
    if found.shape[1:] != wanted or not len(found) or not np.isfinite(found).all():
        raise DataError(
            f"Examples for {spec.name} must be finite numbers of the shape (n, {', '.join(map(str, wanted))}). "
            f"Received: {path} with the shape {found.shape}"
        )
    if spec.vocabulary:
        _check_ids(found, request)
    return found.astype(spec.input_dtype)


def _check_ids(found: Any, request: ModelRequest) -> None:
    """Raise DataError for ids that the network does not know."""
    most = request.options.get("vocabulary") or request.spec.vocabulary
    if found.min() < 0 or found.max() >= most:
        raise DataError(
            f"Ids must be from 0 to {most - 1}. Received: {request.calibrate} with {found.min()} to {found.max()}"
        )


def _noise(request: ModelRequest, count: int, draw: Any) -> Any:
    """Return seeded examples: images of patches, values within the contract's range, or ids that end somewhere."""
    spec, shape = request.spec, request.shape
    if spec.vocabulary:
        return _ids(request, count, draw)
    if len(shape) == 3:
        return _patches(shape, count, draw)
    mean, std = (np.asarray(values, "float32") for values in (spec.preprocessing.mean, spec.preprocessing.std))
    return (draw.normal(size=(count, *shape)) * std + mean).astype("float32")


def _patches(shape: Sequence[int], count: int, draw: Any) -> _np.ndarray:
    """Return images of coarse and of fine noise, whole numbers from 0 to 255 as float32."""
    total = np.zeros((count, *shape), "float32")
    for patch in PATCHES:
        sides = [-(-size // patch) for size in shape[:2]]
        values = draw.uniform(-1.0, 1.0, (count, *sides, shape[2])).astype("float32")
        total += values.repeat(patch, 1).repeat(patch, 2)[:, : shape[0], : shape[1]]
    low, high = total.min(), total.max()
    return np.rint((total - low) * (255.0 / (high - low)))


def _ids(request: ModelRequest, count: int, draw: Any) -> Any:
    """Return token ids, int32, by input where there are several."""
    vocabulary = request.options.get("vocabulary") or request.spec.vocabulary
    lengths = request.shape

    def drawn(length: int) -> Any:
        ids = draw.integers(min(END + 1, vocabulary - 1), vocabulary, (count, length)).astype("int32")
        for row, end in zip(ids[1:], draw.integers(1, length + 1, count - 1), strict=True):
            row[end:] = PADDING
        return ids

    if len(request.spec.inputs) == 1:
        return drawn(*lengths)
    found = dict(zip(request.spec.inputs, map(drawn, lengths), strict=True))
    found["target"][:, 0] = START
    return found
