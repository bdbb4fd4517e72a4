"""Datasets of TensorFlow Datasets: images or texts with a class, several labels or a number.

Prepared datasets are read without a download.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.common.tracing import as_it_is
from training.data.dataset import Dataset, Split, datasets
from training.data.readers.records import read_records
from training.data.readers.tfds_prepare import prepare
from training.recipe.config import DataConfig
from zoo.common.errors import DataError, UnknownName, did_you_mean
from zoo.common.lazy import tf, tfds
from zoo.specs.text import TextConfig

# Fraction of the training examples, from their end, for validation where a dataset has no split for it.
VALIDATION = 0.1


# From the features of an example to (x, y).
Read = Callable[[Mapping[str, Any]], tuple[Any, Any]]


def load_by_name(config: DataConfig) -> Dataset:
    """Return the TFDS dataset `config.name`; raises UnknownName or DataError."""
    return from_builder(open_builder(config.name, config), config.name)


def open_builder(name: str, config: DataConfig) -> Any:
    """Return the TFDS builder of a name, its data below `config.path`; raises UnknownName."""
    try:
        return tfds.builder(name, data_dir=config.path or None, try_gcs=False)
    except Exception as error:  # Namespaces such as huggingface: raise the errors of their clients.
        known = [*datasets.names(), *tfds.list_builders()]
        raise UnknownName(
            f"Expected the name of a registered dataset or of one in TFDS. Received: data.name={name!r}. "
            f"{did_you_mean(name, known)}"
        ) from error


def from_builder(builder: Any, name: str, preprocessing: Any = None, *, local: bool = False) -> Dataset:
    """Return the Dataset of a TFDS builder, preparing it first if necessary.

    Args:
        builder: a tfds.core.DatasetBuilder of images or texts with a class, several labels, or a number.
        name: the name of the dataset.
        preprocessing: the preprocessing of the data, if it defines one.
        local: whether it is prepared without a download.
    """
    x, y = _keys(builder, name)
    feature = builder.info.features[y]
    task, labels, read = TASKS[_kind(feature)](feature, y)
    prepare(builder, name, local)
    splits = _splits(builder, lambda e: (e[x], read(e[y])))
    if _is_text(builder.info.features[x]):
        return Dataset(name, labels, (), splits, text=TextConfig(), task=task)
    return Dataset(name, labels, _shape(builder, x), splits, preprocessing, task=task)


def several_labels(builder: Any, name: str, read: Callable[[Any], tuple[Any, Any]], *, test: str = "test") -> Dataset:
    """Return the multi-label Dataset of a TFDS builder of images with objects, preparing it if necessary.

    Args:
        builder: a tfds.core.DatasetBuilder with the feature "image".
        name: the name of the dataset.
        read: returns the classes of all objects of an example, and of those that are not difficult.
        test: the builder's split that is the test split.
    """
    prepare(builder, name, local=False)
    feature = _first_label(builder.info.features)
    size = feature.num_classes

    def read_example(example: Any) -> tuple[Any, Any]:
        every, plain = (_hot(numbers, size) for numbers in read(example))
        # A class with difficult objects only is not evaluated: -1.
        return example["image"], 2 * plain - every

    splits = _splits(builder, read_example, test=test)
    return Dataset(name, tuple(feature.names), _shape(builder, "image"), splits, task="multilabel")


def _first_label(feature: Any) -> Any:
    """Return the first ClassLabel within features of any depth."""
    if isinstance(feature, tfds.features.ClassLabel):
        return feature
    inner = list(feature.values()) if hasattr(feature, "values") else [getattr(feature, "feature", None)]
    return next((found for f in inner if f is not None and (found := _first_label(f)) is not None), None)


def _hot(numbers: Any, size: int) -> Any:
    """Return int64 (size,) with 1 at each of the numbers (k,)."""
    return tf.cast(tf.reduce_any(tf.cast(tf.one_hot(numbers, size), tf.bool), axis=0), tf.int64)


def _is_text(feature: Any) -> bool:
    return isinstance(feature, tfds.features.Text)


def _kind(feature: Any) -> str:
    """Return the kind of a target: "class", "labels", "number", or "" for any other."""
    if isinstance(feature, tfds.features.ClassLabel):
        return "class"
    if isinstance(getattr(feature, "feature", None), tfds.features.ClassLabel):
        return "labels"
    number = isinstance(feature, tfds.features.Tensor) and feature.shape == () and feature.np_dtype.kind == "f"
    return "number" if number else ""


# The task, the labels and how a target is read, from a feature and its name, by the kind of the target.
TASKS: dict[str, Callable[[Any, str], tuple[str, tuple[str, ...], Callable[[Any], Any]]]] = {
    "class": lambda feature, _: ("classify", tuple(feature.names), lambda y: y),
    "labels": lambda feature, _: (
        "multilabel",
        tuple(feature.feature.names),
        lambda y: _hot(y, feature.feature.num_classes),
    ),
    "number": lambda _, name: ("regress", (name,), lambda y: tf.cast(y, tf.float32)[None]),
}


def _shape(builder: Any, image: str) -> tuple[int, ...]:
    return tuple(size or 0 for size in builder.info.features[image].shape)


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """Return the names of the input and the target among the features.

    They are the supervised keys of the dataset; without these, the only image or text and the only target.
    """
    features = builder.info.features
    supervised = builder.info.supervised_keys
    inputs = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image) or _is_text(feature)]
    targets = [key for key, feature in features.items() if _kind(feature)]
    if supervised and len(supervised) == 2 and supervised[0] in inputs and supervised[1] in targets:
        return supervised[0], supervised[1]
    if not supervised and len(inputs) == len(targets) == 1:
        return inputs[0], targets[0]
    raise DataError(
        "Expected a dataset of images or texts with one class each, any number of labels, or a number. "
        f"Received: data.name={name!r} with {list(features)}"
    )


def _specs(builder: Any, test: str) -> dict[str, str]:
    """Return the TFDS specs of our splits; without a validation split, the end of "train" is one."""
    have = builder.info.splits
    specs = {"train": "train"}
    if "validation" in have and test != "validation":
        specs["validation"] = "validation"
    else:
        cut = have["train"].num_examples - round(VALIDATION * have["train"].num_examples)
        specs |= {"train": f"train[:{cut}]", "validation": f"train[{cut}:]"}
    return specs | ({"test": test} if test in have else {})


def _splits(builder: Any, read: Read, *, test: str = "test") -> dict[str, Split]:
    return {ours: _split(builder, spec, read) for ours, spec in _specs(builder, test).items()}


def _split(builder: Any, spec: str, read: Read) -> Split:
    """Return one split, its images still encoded, in the order in which they are stored."""
    images = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    decoders = {key: tfds.decode.SkipDecoding() for key in images} or None
    info = builder.info.splits[spec]

    def load(instruction: Any) -> Any:
        examples = builder.as_dataset(
            split=instruction,
            decoders=decoders,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        return examples.map(as_it_is(read))

    def select(numbers: Any) -> Any:
        if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
            # Record files that TFDS itself can skip in.
            return load(_instructions(spec, numbers))
        records = tf.data.Dataset.from_tensor_slices(_records(info, numbers))
        features = builder.info.features
        return records.map(as_it_is(lambda r: read(features.deserialize_example(r, decoders=decoders))))

    return Split(load(spec), info.num_examples, select=select)


def _records(info: Any, numbers: Any) -> list[bytes]:
    """Return the serialized examples of some numbers in a split, in rising order; of others the lengths are read."""
    found: list[bytes] = []
    first = 0
    for file in info.file_instructions:
        last = first + (file.take if file.take >= 0 else file.examples_in_shard - file.skip)
        wanted = [int(number - first) + file.skip for number in numbers if first <= number < last]
        found += read_records(Path(file.filename), wanted) if wanted else []
        first = last
    return found


def _instructions(spec: str, numbers: Any) -> Any:
    """Return the TFDS instruction that reads some numbers of a split such as "train" or "train[10:]"."""
    name, _, bounds = spec.partition("[")
    start = int(bounds.partition(":")[0] or 0)
    parts = [tfds.core.ReadInstruction(name, start + int(n), start + int(n) + 1, unit="abs") for n in numbers]
    return functools.reduce(operator.add, parts)
