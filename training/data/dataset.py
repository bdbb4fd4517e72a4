"""Datasets: raw examples in named splits, their labels, and how raw values are preprocessed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.registries import datasets
from training.common.tracing import as_it_is
from training.data.columns.cells import Rows
from training.data.columns.schema import ColumnSchema
from training.data.outputs import Output, label_slices
from training.recipe.config import DataConfig
from zoo.common.lazy import np, tf
from zoo.specs.preprocessing import FULL, PreprocessingConfig
from zoo.specs.tasks import task_of
from zoo.specs.text import TextConfig

if TYPE_CHECKING:
    import numpy as _np
    import tensorflow as _tf


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Args:
        examples: tf.data of (x, y) in a fixed order. x is a scalar string (the bytes of an encoded image, or a text in
            UTF-8), a float32 vector of features, or the number of a table row; y depends on the task of the dataset.
        count: number of examples.
        shuffled: maps (seed, skip) to `examples` in an order that the seed decides, without the first `skip` of it.
            None shuffles in a buffer; a reader that can shuffle file names before it reads any file sets it. With a
            third parameter it also takes a function that maps a tf.data dataset to the part of it that is read.
        select: maps numbers of examples, int64 (n,) in rising order, to tf.data of these examples and reads no others.
            None reads `examples` up to the last of them.
        read_labels: returns tf.data of y of all examples in the order of `examples` without reading any x. None takes
            them from `examples`.
    """

    examples: _tf.data.Dataset
    count: int
    shuffled: Callable[..., _tf.data.Dataset] | None = None
    select: Callable[[_np.ndarray], _tf.data.Dataset] | None = None
    read_labels: Callable[[], _tf.data.Dataset] | None = None

    def labels(self) -> _tf.data.Dataset:
        """Return y of all examples in their order; no x is decoded."""
        return self.read_labels() if self.read_labels else self.examples.map(as_it_is(lambda _, y: y))

    def selected(self, numbers: Sequence[int]) -> _tf.data.Dataset:
        """Return the raw examples of some numbers in rising order.

        Args:
            numbers: positions in `examples`, from 0, rising.
        """
        wanted = np.asarray(numbers, "int64")
        if self.select:
            return self.select(wanted)
        examples = self.examples.take(int(wanted[-1]) + 1).enumerate()
        examples = examples.filter(as_it_is(lambda i, _: tf.reduce_any(tf.equal(i, wanted))))
        return examples.map(as_it_is(lambda _, example: example))


@dataclasses.dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the training targets of a regression, in the units of the data.

    Args:
        mean: of each target.
        std: of each target, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class DataFiles:
    """The files that a dataset reads.

    Args:
        root: the folder that their names are relative to.
        splits: the files of each split, in an order that other files do not change.
        suffixes: of the files that are examples, lower case; () where the files hold many examples each.
        unused: files with such suffixes that are left out.
        digest: returns the digest of a file.
        rebuild: returns the dataset with other files in its splits, and with the labels that are given; None if the
            splits are no matter of files.
        legacy: returns the dataset in the splits of runs without a list of files; None where these are the same.
        others: further files, such as one with the labels.
    """

    root: Path
    splits: Mapping[str, Sequence[Path]]
    suffixes: tuple[str, ...]
    unused: Sequence[Path]
    digest: Callable[[Path], str]
    rebuild: Callable[[Mapping[str, Sequence[Path]], tuple[str, ...]], Dataset] | None = None
    legacy: Callable[[], Dataset] | None = None
    others: Sequence[Path] = ()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Named splits of raw examples with their metadata.

    Args:
        name: the name of the dataset.
        labels: names of the classes, tags, labels or targets, in the order of the logits or values; () for generated
            text.
        shape: (height, width, channels) of all images, 0 where images differ; (features,); or () of text and tables.
        splits: "train", and "validation" and "test" where they exist.
        preprocessing: the preprocessing of the data, if it defines one.
        text: how strings become tokens, where x is text; a vocabulary of only `zoo.specs.text.SPECIAL` means that the
            vocabulary is built from the training split.
        task: "classify", y is a class index, int64; "multilabel", y is int64 (labels,): 1 for each label that applies,
            0 for each that does not, -1 for unknown; "regress", y is float32 (targets,) in the units of the data;
            "tag", y is a string of tags separated by white space, one for each token of x; "generate", y is the target
            text; "multitask", several targets, y is float32 (columns,), see `training.data.outputs`.
        table: the column schema that was fitted on the training rows, where x is the number of a row of a table.
        cells: the cells of a table.
        scale: mean and standard deviation of the targets of a regression, once computed; of several targets, for each
            column of y, 0 and 1 where it is no number.
        options: the fields of `DataConfig` that apply to this dataset in addition to those of its kind of data.
        turned: whether images may have an EXIF orientation other than upright; those of published datasets are used
            as they are stored.
        find_turned: returns whether any image has one, by its metadata; None without such images.
        check: raises DataError if an example cannot be read, and may return notes; maps names of splits to numbers of
            examples, int64 (n,). None does not check examples before they are read.
        notes: what was left out, and why, a line each.
        refine: returns the dataset with what is known once all examples are checked.
        bits: bits that images of 16 bits use, see `PreprocessingConfig`.
        details: names of what was left out or doubled, JSON-safe, for the summary.
        files: the files that are read; None for data that is not yours.
        images: the files of each split whose examples are an image file each.
        outputs: of the model, for several targets; then the labels are those of all outputs side by side.
    """

    name: str
    labels: tuple[str, ...]
    shape: tuple[int, ...]
    splits: dict[str, Split]
    preprocessing: PreprocessingConfig | None = None
    text: TextConfig | None = None
    task: str = "classify"
    table: ColumnSchema | None = None
    cells: Rows | None = None
    scale: TargetScale | None = None
    options: tuple[str, ...] = ()
    turned: bool = False
    find_turned: Callable[[], bool] | None = None
    check: Callable[[Mapping[str, _np.ndarray]], Sequence[str] | None] | None = None
    notes: tuple[str, ...] = ()
    refine: Callable[[Dataset], Dataset] | None = None
    bits: int = FULL
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: DataFiles | None = None
    images: Mapping[str, Sequence[str | Path]] = dataclasses.field(default_factory=dict)
    outputs: tuple[Output, ...] = ()

    @property
    def has_numbers(self) -> bool:
        """Whether targets are numbers in units of the data, which have a scale."""
        return any(task_of(task).numbers for task in (self.task, *(output.task for output in self.outputs)))

    def of_output(self, output: Output) -> Dataset:
        """Return the dataset with the task, labels and scale of one of several outputs."""
        scale = self.scale
        if scale is not None:
            place = next(place for one, place in label_slices(self.outputs) if one == output)
            scale = TargetScale(scale.mean[place], scale.std[place]) if task_of(output.task).numbers else None
        return dataclasses.replace(self, task=output.task, labels=output.labels, scale=scale, outputs=())

    def checked(self) -> Dataset:
        """Return the dataset after checking every example; raises DataError."""
        found = self.check({name: np.arange(split.count) for name, split in self.splits.items()}) if self.check else ()
        # Images that are all upright are decoded faster.
        turned = self.find_turned() if self.find_turned else self.turned
        notes = (*self.notes, *(found or ()))
        dataset = dataclasses.replace(self, check=None, turned=turned, find_turned=None, refine=None, notes=notes)
        return self.refine(dataset) if self.refine else dataset


def register_dataset(name: str) -> Callable[[Callable[[DataConfig], Dataset]], Callable[[DataConfig], Dataset]]:
    """Return a decorator that registers a function from a DataConfig to a Dataset.

    Args:
        name: the value of `data.name` in recipes.

    Raises:
        DuplicateName: the name is taken.
    """

    def decorate(load: Callable[[DataConfig], Dataset]) -> Callable[[DataConfig], Dataset]:
        datasets.add(name, load, load.__module__)
        return load

    return decorate


def in_memory_split(x: Sequence[Any], y: Sequence[Any]) -> Split:
    """Return a split of texts or vectors that are in memory, with their class indices, values or texts."""

    def read(inputs: Any, targets: Any) -> Any:
        return tf.data.Dataset.from_tensor_slices((inputs, targets)).map(as_it_is(_int64_label))

    return Split(read(x, y), len(x), select=lambda numbers: read(*(_rows(values, numbers) for values in (x, y))))


def _rows(values: Any, numbers: Any) -> Any:
    return [values[int(i)] for i in numbers]


def _int64_label(x: Any, y: Any) -> tuple[Any, Any]:
    return x, tf.cast(y, tf.int64) if y.dtype.is_integer else y
