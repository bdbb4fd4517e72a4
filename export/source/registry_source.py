"""The source model of a registry model, and its examples: a user's images or rows, or seeded noise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from export.core.samples import FEWEST, predict_in_batches, split_examples, take_examples
from export.source.request import FILE, FOLDER, RANDOM, RegistryRequest
from export.source.run_source import SAMPLE_BYTES
from export.source.source import CALIBRATION_EXAMPLES, SourceModel
from export.source.texts import text_examples
from training.common.image_files import UnreadableImage
from training.common.preprocess import decode
from training.data.readers.images.checks import read_encoded
from training.recipe.config import DataConfig
from zoo.build import dtype_policy
from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import keras, np, tf
from zoo.decoding import greedy
from zoo.reading.arrays import read_npy
from zoo.reading.data_files import read_numbers
from zoo.reading.files import Refusal, reading
from zoo.specs.preprocessing import PRESETS, PreprocessingConfig
from zoo.specs.tasks import task_of
from zoo.specs.text import END, PADDING, START
from zoo.weights.source import HeadWarning

if TYPE_CHECKING:
    import numpy as _np

SEED = 0
# Examples to compare artifacts on: by default; for models above HEAVY billion multiply-adds, which take a second each
# in formats without fast kernels; and for sequence-to-sequence models.
COMPARED, HEAVY, COMPARED_HEAVY, COMPARED_SEQUENCES = 64, 1.0, 32, 16
# Side lengths of the patches in noise images, in pixels: noise of single pixels averages out in a model.
PATCHES = (1, 4, 16)


def open_registry_source(request: RegistryRequest, scratch: Path) -> tuple[SourceModel, dict[str, Any]]:
    """Build a model of the registry.

    Args:
        request: the model, its weights and examples.
        scratch: folder for artifacts that several formats share.

    Returns:
        What `export.source.run_source.open_run_source` returns; the samples have no labels. For token ids "valid" marks
        the positions that are not padding.

    Raises:
        BadOption: the weights do not fit, have a head of another size, or do not state their preprocessing.
        DataError: the examples cannot be read.
    """
    keras.utils.set_random_seed(SEED)
    model = _trained(request)
    info = zoo.info(model)
    preprocessing = info.preprocessing or PreprocessingConfig()  # token ids have none
    texts = text_examples(request, info.text, _most(request))
    calibrate, compared = texts.examples if texts else _examples(request, preprocessing)
    labels = request.labels if info.labels is None else info.labels
    source = SourceModel(model, preprocessing, labels, calibrate, scratch, info.text, {"task": request.task})
    source.info = info
    samples = {"inputs": compared, "logits": predict_in_batches(source.model, compared)}
    if texts:
        samples["texts"] = texts.compared
    kind = task_of(source.task)
    if kind.generates:
        samples["tokens"] = np.asarray(greedy(source.encoder_decoder, keras.ops.convert_to_tensor(compared["source"])))
    if kind.tokens:
        samples["valid"] = (compared["target"] if kind.generates else compared) != PADDING
    return source, samples


def _trained(request: RegistryRequest) -> Any:
    """Return the model with its weights, all of them trained, and with a preprocessing that is known."""
    weights = None if request.weights == RANDOM else request.weights
    try:
        with dtype_policy("float32"), warnings.catch_warnings():
            warnings.simplefilter("error", HeadWarning)
            model = zoo.get(request.name, weights=weights, **request.options)
    except HeadWarning as note:
        raise BadOption(f"{note} An export needs trained weights: pass the classes of the weights.") from note
    if zoo.preprocessing(model) is None and not request.spec.vocabulary:
        raise BadOption(
            f"weights must state the preprocessing that they expect. Received: weights={request.weights!r}, which do "
            f"not. Pass preprocessing (--preprocessing): one of {', '.join(PRESETS)}, or a JSON text."
        )
    return model


def _examples(request: RegistryRequest, preprocessing: PreprocessingConfig) -> tuple[Callable[[int], Any], Any]:
    """Return a function from a count to examples to calibrate on, and examples to compare on.

    They are disjoint if there are enough. Images are decoded when they are asked for.
    """
    rng, most = np.random.default_rng(SEED), _most(request)
    if request.samples == FOLDER:
        paths = request.images()
        chosen = [paths[i] for i in rng.permutation(len(paths))[: CALIBRATION_EXAMPLES + most]]
        first, second = split_examples(chosen, most)
        return lambda count: _decoded(request, preprocessing, first[:count]), _decoded(request, preprocessing, second)
    if request.samples == FILE:
        rows = _rows(request)
        examples: Any = rows[rng.permutation(len(rows))[: CALIBRATION_EXAMPLES + most]]
    else:
        examples = _noise(request, preprocessing, 2 * most, rng)
    calibration, compared = split_examples(examples, most)
    return lambda count: take_examples(calibration, count), compared


def _most(request: RegistryRequest) -> int:
    """Return the number of examples to compare artifacts on."""
    generates = task_of(request.spec.task).generates
    most = COMPARED_HEAVY if request.spec.gmacs > HEAVY else COMPARED_SEQUENCES if generates else COMPARED
    return max(FEWEST, min(most, SAMPLE_BYTES // math.prod(request.shape)))


def _decoded(request: RegistryRequest, preprocessing: PreprocessingConfig, paths: Sequence[Path]) -> _np.ndarray:
    """Return images resized and cropped by the spec's preprocessing, float32 (n, height, width, channels)."""
    spec, images = request.spec, []
    if spec.inputs != ("image",):
        raise DataError(
            f"{spec.name} takes {spec.inputs[0]}, no images. Received: calibration={request.calibration!r}. "
            "Name a .npy or .csv file of examples, or a .txt file of texts."
        )
    for path in paths:
        try:
            images.append(decode(read_encoded(path, DataConfig().max_pixels), request.shape, preprocessing).numpy())
        except (tf.errors.InvalidArgumentError, OSError, UnreadableImage) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(f"Expected an image that can be decoded. Received: {path}: {reason}") from error
    return np.stack(images)


def _rows(request: RegistryRequest) -> _np.ndarray:
    """Return the examples of a .npy file (n, *shape), or of a .csv file with a header line."""
    path, spec = Path(request.calibration), request.spec
    if task_of(spec.task).generates:
        raise DataError(f"{spec.name} is calibrated on seeded ids. Received: calibration={str(path)!r}. Leave it out.")
    refusal = Refusal("Expected examples in a .npy or .csv file", DataError, "Correct the file, or name another one.")
    with warnings.catch_warnings(), reading(path, refusal):
        warnings.simplefilter("ignore")
        numbers = path.suffix == ".npy"
        rows = read_npy(path, refusal) if numbers else read_numbers(path)
    if rows.dtype.kind not in "biuf" or not rows.ndim:
        raise DataError(f"Expected an array of numbers. Received: {path} of {rows.dtype}. Correct the file.")
    if rows.shape[1:] != request.shape or not len(rows) or not np.isfinite(rows).all():
        raise DataError(
            f"Examples for {spec.name} must be finite numbers of the shape (n, {', '.join(map(str, request.shape))}). "
            f"Received: {path} with the shape {rows.shape}"
        )
    if spec.vocabulary:
        _check_ids(rows, request)
    return rows.astype(spec.input_dtype)


def _check_ids(ids: Any, request: RegistryRequest) -> None:
    """Raise DataError for ids outside the vocabulary."""
    vocabulary = request.options.get("vocabulary") or request.spec.vocabulary
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise DataError(
            f"Ids must be from 0 to {vocabulary - 1}. Received: {request.calibration} with {ids.min()} to {ids.max()}"
        )


def _noise(request: RegistryRequest, preprocessing: PreprocessingConfig, count: int, rng: Any) -> Any:
    """Return seeded examples: images of patches, values in the range of the preprocessing, or padded ids."""
    spec, shape = request.spec, request.shape
    if spec.vocabulary:
        return _ids(request, count, rng)
    if len(shape) == 3:
        return _patches(shape, count, rng)
    mean, std = (np.asarray(values, "float32") for values in (preprocessing.mean, preprocessing.std))
    return (rng.normal(size=(count, *shape)) * std + mean).astype("float32")


def _patches(shape: Sequence[int], count: int, rng: Any) -> _np.ndarray:
    """Return images of coarse and fine noise, integers in [0, 255] as float32."""
    total = np.zeros((count, *shape), "float32")
    for patch in PATCHES:
        sides = [-(-size // patch) for size in shape[:2]]
        values = rng.uniform(-1.0, 1.0, (count, *sides, shape[2])).astype("float32")
        total += values.repeat(patch, 1).repeat(patch, 2)[:, : shape[0], : shape[1]]
    low, high = total.min(), total.max()
    return np.rint((total - low) * (255.0 / (high - low)))


def _ids(request: RegistryRequest, count: int, rng: Any) -> Any:
    """Return token ids, int32; a dictionary by input if there are several."""
    vocabulary = request.options.get("vocabulary") or request.spec.vocabulary
    lengths = request.shape

    def sample(length: int) -> Any:
        ids = rng.integers(min(END + 1, vocabulary - 1), vocabulary, (count, length)).astype("int32")
        for row, end in zip(ids[1:], rng.integers(1, length + 1, count - 1), strict=True):
            row[end:] = PADDING
        return ids

    if len(request.spec.inputs) == 1:
        return sample(*lengths)
    inputs = dict(zip(request.spec.inputs, map(sample, lengths), strict=True))
    inputs["target"][:, 0] = START
    return inputs
