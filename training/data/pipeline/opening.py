"""Open the pipeline of a recipe: load the data, check it, and determine shape, preprocessing and vocabulary."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

from training.augment.augment import check_augment, is_active
from training.common.tracing import as_it_is
from training.data.columns.schema import ColumnSchema
from training.data.dataset import Dataset, TargetScale
from training.data.outputs import weighted
from training.data.pipeline.encoders import make_encoder
from training.data.pipeline.encoding import Encoder
from training.data.pipeline.pipeline import Pipeline
from training.data.pipeline.statistics import TABLES_ONLY, compute_normalization, compute_target_scale
from training.data.pipeline.text_encoding import text_length
from training.data.pretrained import expected_preprocessing, pretrained_info
from training.data.readers.changes import RunFiles, files_to_json
from training.data.readers.loading import open_dataset
from training.data.summary import summarize
from training.data.tokenization import BATCH, build_vocabulary, tokenizer
from training.data.wordpiece import learn_word_pieces
from training.recipe.config import DataConfig
from training.recipe.recipe import Recipe
from zoo.common.budgets import require_memory
from zoo.common.errors import BadOption, DataError, RunError
from zoo.specs.info import ModelInfo
from zoo.specs.preprocessing import FULL, PreprocessingConfig
from zoo.specs.registry import ModelSpec
from zoo.specs.tasks import task_of
from zoo.specs.text import SPECIAL, TextConfig

# Fields of DataConfig that apply to images, to texts, and to images and values.
OF_IMAGES = ("augment", "image_size", "train_size", "channels", "max_pixels")
OF_TEXTS = ("length", "vocabulary", "tokenizer")
OF_VALUES = ("preprocessing", "normalize")
# Fields that apply to some datasets, and which these are.
OF_DATASETS = {
    "split_fractions": "data without splits",
    "split_seed": "data without splits",
    "stratify": "data without splits",
    "near_duplicates": "images in folders and label files",
    "target": "tables and label files",
    "task": "tables and label files",
    "tasks": "tables and label files",
    "columns": "tables and label files",
    "decimal": "tables and label files",
    "date_order": "tables",
    "missing": "tables and label files",
    "header": "tables and label files",
    "encoding": "tables, label files and text files",
}
# Training texts that are tokenized to find out how many are truncated.
LONG_TEXTS = 4096
# The default of `data.normalize` for tables.
TABLE_DEFAULT = "channel"


def open_pipeline(
    recipe: Recipe,
    spec: ModelSpec,
    text: TextConfig | None = None,
    statistics: dict[str, Any] | None = None,
    files: RunFiles | None = None,
    *,
    check: bool = True,
) -> Pipeline:
    """Load the data of a recipe and return its pipeline.

    Args:
        recipe: the recipe.
        spec: the spec of its model.
        text: the text config of a run; None builds the vocabulary from the training split.
        statistics: the `training_statistics` of a run; None computes them from the training split.
        files: the files of a run; None splits the data as it is now.
        check: whether to check every example now, as training does; otherwise examples are checked when they are read.

    Raises:
        DataError: the data is missing or unreadable.
        BadOption: an option does not apply to this data, or the model does not fit it.
    """
    dataset = open_dataset(recipe.data)
    dataset = files.select(dataset, recipe.data) if files else dataset
    dataset = dataset.checked() if check else dataset
    for split in ("train", "validation", "test"):
        if split in dataset.splits and not dataset.splits[split].count:
            raise DataError(f"Expected examples in every split of {dataset.name}. Received: none in {split}.")
    if "validation" not in dataset.splits:
        raise DataError(f"Expected a validation split. Received: {dataset.name} without one.")
    _check_fit(recipe, dataset, spec)
    known = None if statistics is None else _parse_statistics(statistics)
    dataset = _with_statistics(dataset, known)
    dataset = dataclasses.replace(dataset, outputs=weighted(dataset.outputs, recipe.loss.heads))
    shape = text_length(recipe.data.length, spec.input_shape) if dataset.text else _shape(recipe, dataset, spec)
    pretrained = None
    if recipe.model.weights:
        pretrained = _statistic(known, "pretrained", lambda: pretrained_info(recipe, shape))
        shape = _native(recipe, dataset, pretrained, shape)
    # The workers of several machines hold a part of a batch each.
    batch = 1 if recipe.strategy == "multiworker" else recipe.data.batch_size
    require_memory(
        4.0 * batch * math.prod(shape),
        f"a batch of {batch:,} examples of {' x '.join(map(str, shape))}",
        "Lower data.batch_size, data.image_size or data.length.",
    )
    if dataset.text:
        return _open_text(recipe, dataset, spec, text, check, pretrained)
    bits = dataset.bits if known is None else known.get("bits", FULL)
    preprocessing = _with_bits(_preprocessing(recipe, dataset, spec, pretrained), bits)
    if shape[-1] == 1 and 3 in (len(preprocessing.mean), len(preprocessing.std)):
        preprocessing = _grayscale(preprocessing)
    if len(shape) == 3:
        check_augment(recipe.data.augment, shape[-1], dataset.task)
    if check:
        _check_examples(make_encoder(dataset, shape, preprocessing, None))
    normalization = _normalization(recipe, dataset)
    if normalization:
        compute = functools.partial(compute_normalization, dataset, shape, preprocessing, normalization)
        preprocessing = _statistic(known, "preprocessing", compute)
    preprocessing.check(shape[-1])
    return Pipeline(dataset, recipe, shape, preprocessing, checked=check, pretrained=pretrained)


def training_statistics(pipeline: Pipeline) -> dict[str, Any]:
    """Return the statistics of the training split, JSON-safe, for `open_pipeline`; the vocabulary is separate.

    Returns:
        "preprocessing" if its mean and std were computed from the training split, "scale" of the targets of a
        regression, "tabular", the column schema of a table, "pretrained", what the weights state that the training
        started from, the "summary" of the data, "bits" of images that use less than 16, and the "files" of the data.
    """
    dataset = pipeline.dataset
    found: dict[str, Any] = {"summary": summarize(dataset)}
    if pipeline.pretrained:
        found["pretrained"] = pipeline.pretrained.to_json()
    if not dataset.text and _normalization(pipeline.recipe, dataset):
        found["preprocessing"] = pipeline.preprocessing.to_json()
    if dataset.scale:
        found["scale"] = dataclasses.asdict(dataset.scale)
    if dataset.table:
        found["tabular"] = dataset.table.to_json()
    if dataset.bits < FULL:
        found["bits"] = dataset.bits
    if stored := files_to_json(dataset):
        found["files"] = stored
    return found


def _with_statistics(dataset: Dataset, known: dict[str, Any] | None) -> Dataset:
    """Return a dataset with its column schema and target scale, as saved or computed now."""
    if dataset.table:
        dataset = dataclasses.replace(dataset, table=_statistic(known, "tabular", lambda: dataset.table))
    if not dataset.has_numbers:
        return dataset
    return dataclasses.replace(dataset, scale=_statistic(known, "scale", lambda: compute_target_scale(dataset)))


def _statistic(known: dict[str, Any] | None, name: str, compute: Callable[[], Any]) -> Any:
    """Return a statistic that a run saves, or compute it if there is no run; raises RunError."""
    if known is None:
        return compute()
    if name not in known:
        raise RunError(
            f"Expected the training statistics that a run saves. Received: {', '.join(known) or 'none'}, without "
            f"{name!r}. Restore the files of the run, or train again."
        )
    return known[name]


def _parse_statistics(values: dict[str, Any]) -> dict[str, Any]:
    """Return the statistics of `training_statistics` from JSON; raises RunError."""
    try:
        return {key: _READERS[key](value) for key, value in values.items()}
    except (AttributeError, BadOption, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"Expected the training statistics that a run saves. Received: {str(values)[:100]} "
            f"({type(error).__name__}: {error}). Train again."
        ) from error


_READERS: dict[str, Callable[[Any], Any]] = {
    "preprocessing": PreprocessingConfig.from_json,
    "pretrained": ModelInfo.from_json,
    "scale": lambda v: TargetScale(tuple(map(float, v["mean"])), tuple(map(float, v["std"]))),
    "tabular": ColumnSchema.from_json,
    "summary": dict,
    "bits": int,
    "files": dict,
    "skipped": dict,
}


def _preprocessing(
    recipe: Recipe, dataset: Dataset, spec: ModelSpec, pretrained: ModelInfo | None
) -> PreprocessingConfig:
    """Return the preprocessing: the recipe's, else that of pretrained weights, else the data's, else the model's."""
    if recipe.data.preprocessing:
        return recipe.data.preprocessing
    if pretrained and not _normalization(recipe, dataset):
        return expected_preprocessing(recipe, pretrained)
    return dataset.preprocessing or spec.preprocessing


def _with_bits(preprocessing: PreprocessingConfig, bits: int) -> PreprocessingConfig:
    """Return a preprocessing config with the bits that deep images use, unless the recipe states them."""
    return dataclasses.replace(preprocessing, bits=bits) if preprocessing.bits == FULL else preprocessing


def _normalization(recipe: Recipe, dataset: Dataset) -> str:
    """Return the statistics of the training split that normalize values, "" for none."""
    return recipe.data.normalize or (TABLE_DEFAULT if dataset.table and not recipe.data.preprocessing else "")


def _check_fit(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> None:
    """Raise BadOption if the task or input of the model is not that of the data, or an option does not apply."""
    model, data = ("text" if known else "no text" for known in (spec.vocabulary, dataset.text))
    task = task_of(dataset.task).model
    # A head for classes makes a classifier of a model that gives vectors.
    if model != data or spec.task not in (task, task_of(task).headless):
        raise BadOption(
            "The model must have the task and the kind of input of the data. "
            f"Received: model.name={recipe.model.name!r} ({spec.task}, {model}), "
            f"data.name={recipe.data.name!r} ({dataset.task}, {data})"
        )
    unfit = dict.fromkeys(OF_VALUES, "images and numbers") | dict.fromkeys(OF_IMAGES, "images") if dataset.text else {}
    unfit |= {} if dataset.text else dict.fromkeys(OF_TEXTS, "texts")
    unfit |= {} if dataset.text or len(dataset.shape) == 3 else dict.fromkeys(("image_size", "channels"), "images")
    unfit |= {name: kind for name, kind in OF_DATASETS.items() if name not in dataset.options}
    for name, kind in unfit.items():
        if getattr(recipe.data, name) != getattr(DataConfig(), name):
            raise BadOption(
                f"data.{name} applies to {kind}. Received: data.{name}={getattr(recipe.data, name)!r} with "
                f"{dataset.name}, which has {data}"
            )
    if recipe.data.normalize in TABLES_ONLY and not dataset.table:
        raise BadOption(
            f"data.normalize={recipe.data.normalize} applies to tables. Received: {dataset.name}. Use channel."
        )
    if len(dataset.shape) != 3 and is_active(recipe.data.augment):
        raise BadOption(f"data.augment applies to images. Received: {dataset.name} of shape {dataset.shape}")


def _check_examples(encoder: Encoder) -> None:
    """Raise DataError for an example of any split that cannot be encoded."""
    for split in encoder.dataset.splits:
        encoder.check(split)


def _open_text(
    recipe: Recipe,
    dataset: Dataset,
    spec: ModelSpec,
    text: TextConfig | None,
    check: bool,
    pretrained: ModelInfo | None,
) -> Pipeline:
    """Return the pipeline of texts, with the tokenization of pretrained weights; else builds the vocabulary."""
    shape, most = text_length(recipe.data.length, spec.input_shape), recipe.data.vocabulary
    plain = PreprocessingConfig()
    if text is None and pretrained and pretrained.text:
        text = pretrained.text
    if check:
        _check_examples(make_encoder(dataset, shape, plain, text or dataset.text))
    if text is None and dataset.text.vocabulary == SPECIAL:
        examples = dataset.splits["train"].examples
        if not task_of(dataset.task).generates:
            examples = examples.map(as_it_is(lambda x, _: x))
        text = _learned(recipe, dataset, examples, most or spec.vocabulary)
    elif most and text is None:
        raise BadOption(f"{dataset.name} defines its own vocabulary. Received: data.vocabulary={most}. Leave it at 0.")
    if check and task_of(dataset.task).indexed:
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *_long(dataset, text or dataset.text, shape[0])))
    return Pipeline(dataset, recipe, shape, plain, text or dataset.text, check, pretrained)


def _learned(recipe: Recipe, dataset: Dataset, examples: Any, most: int) -> TextConfig:
    """Return the text config with a vocabulary of the training texts; raises BadOption."""
    if not recipe.data.tokenizer:
        return build_vocabulary(dataset.text, examples, most)
    if task_of(dataset.task).generates:
        raise BadOption(
            f"data.tokenizer applies to texts with labels. Received: data.tokenizer={recipe.data.tokenizer!r} with "
            f"{dataset.name}, which generates text. Leave it out."
        )
    return learn_word_pieces((text.decode("utf-8", "replace") for text in examples.as_numpy_iterator()), most)


def _long(dataset: Dataset, text: TextConfig, length: int) -> Iterator[str]:
    """Yield a line if training texts are truncated; of large splits, some texts are counted."""
    split, ids = dataset.splits["train"], tokenizer(text)
    step, lengths = max(1, split.count // LONG_TEXTS), list[int]()
    for number, (batch, _) in enumerate(split.examples.batch(BATCH)):
        if number % step == 0:
            lengths += ids(batch).row_lengths().numpy().tolist()
    share = sum(found > length for found in lengths) / len(lengths)
    if share:
        yield (
            f"{share:.1%} of the training texts are longer than {length} tokens and are truncated (the longest has "
            f"{max(lengths):,}); data.length changes it"
        )


def _shape(recipe: Recipe, dataset: Dataset, spec: ModelSpec) -> tuple[int, ...]:
    """Return the shape of a decoded example: the recipe's, else the data's, else the model's."""
    if dataset.table:
        return (dataset.table.width,)
    if len(dataset.shape) != 3:
        return dataset.shape
    model = spec.input_shape if len(spec.input_shape) == 3 else (64, 64, 3)
    size = recipe.data.image_size or (dataset.shape[:2] if all(dataset.shape[:2]) else model[:2])
    return (*size, recipe.data.channels or dataset.shape[2] or model[2])


def _native(recipe: Recipe, dataset: Dataset, info: ModelInfo, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an example: for images of any size, the size for which pretrained weights were made."""
    free = len(dataset.shape) == 3 and not recipe.data.image_size and not all(dataset.shape[:2])
    return (*info.input_size, shape[-1]) if free and info.input_size else shape


def _grayscale(preprocessing: PreprocessingConfig) -> PreprocessingConfig:
    """Return the preprocessing of color images for grayscale images: the means over the channels."""

    def average(values: tuple[float, ...]) -> tuple[float, ...]:
        return (sum(values) / len(values),)

    values = {name: average(getattr(preprocessing, name)) for name in ("mean", "std", "background")}
    return dataclasses.replace(preprocessing, **values)
