"""From labelled image files to a dataset: checks, conversion, duplicates, and what a run remembers of the files."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from training.common.image_files import DECODED, depth_of
from training.data.dataset import DataFiles, Dataset, Split
from training.data.outputs import Output
from training.data.readers.files import listed, name_in
from training.data.readers.folders import FileCheck, bad_message
from training.data.readers.images.checks import ImageChecks, any_turned, image_split, left_out_lines
from training.data.readers.images.near import near_pairs
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import np
from zoo.specs.preprocessing import FULL
from zoo.specs.tasks import task_of

# What the files of a message should be.
EXPECTED = "images that can be decoded"
# Pairs of equal images that a summary names.
PAIRS = 1000


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Labelled image files.

    Args:
        name: of the dataset.
        root: the folder, for messages and names.
        labels: names of the classes or labels.
        splits: the files of each split.
        targets: the label of each file: a class index, a row of labels, int64, or a row of numbers, float32.
        task: "classify", "multilabel", "regress" or "multitask".
        options: the fields of DataConfig that apply.
        notes: what was left out, and why, a line each.
        suffixes: of the files that are examples.
        legacy: returns these files in the splits of runs without a list of files; None where these are the same.
        others: further files that are read, such as one with the labels.
        unused: images that are left out.
        outputs: of the model, for several targets.
    """

    name: str
    root: Path
    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[Path]]
    targets: Mapping[Path, Any]
    task: str = "classify"
    options: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    legacy: Callable[[], ImageFiles] | None = None
    others: tuple[Path, ...] = ()
    unused: tuple[Path, ...] = ()
    outputs: tuple[Output, ...] = ()


def image_dataset(files: ImageFiles, config: DataConfig, checks: ImageChecks | None = None) -> Dataset:
    """Return labelled images, each split in a fixed random order.

    Args:
        files: the images.
        config: `skip_bad` decodes all images now and leaves out those that cannot be decoded; otherwise the check of
            the dataset refuses these. `max_pixels` limits their size.
        checks: what is known of them.

    Raises:
        DataError: a split or a class has no images left.
    """
    checks = checks or ImageChecks(config.max_pixels)
    bad = checks.bad(chain.from_iterable(files.splits.values())) if config.skip_bad else {}
    good = {name: [path for path in paths if path not in bad] for name, paths in files.splits.items()}
    _require(files, good)
    splits, ordered = {}, {}
    for name, paths in good.items():
        ordered[name] = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
        splits[name] = labelled_split(ordered[name], files.targets, checks)
    left_out = {name_in(files.root, path): reason for path, reason in sorted(bad.items())}
    return Dataset(
        files.name,
        files.labels,
        (0, 0, 0),
        splits,
        task=files.task,
        outputs=files.outputs,
        options=files.options,
        turned=True,
        find_turned=lambda: any_turned(chain.from_iterable(good.values())),
        check=None if config.skip_bad else FileCheck(files.root, ordered, checks.bad, EXPECTED),
        notes=(*files.notes, *left_out_lines(bad, files.root)),
        details={"left_out": left_out} if left_out else {},
        refine=lambda dataset: _with_near(_refined(dataset, files, good, checks), good, config, checks),
        files=_data_files(files, good, config, checks),
        images=good,
    )


def labelled_split(paths: Sequence[Path], targets: Mapping[Path, Any], checks: ImageChecks) -> Split:
    """Return the split of some images, read as TensorFlow decodes them."""
    return image_split(paths, np.array([targets[path] for path in paths]), checks)


def _require(files: ImageFiles, good: Mapping[str, Sequence[Path]]) -> None:
    """Raise DataError for a split, or a class in training, in which no image is left."""
    for name, paths in good.items():
        if not paths:
            raise DataError(f"Expected {EXPECTED}. Received: {files.root} with none left in the {name} split.")
    if task_of(files.task).indexed:
        left = {int(files.targets[path]) for path in good["train"]}
        if empty := [label for number, label in enumerate(files.labels) if number not in left]:
            raise DataError(
                f"Expected training images of every class that can be decoded. Received: {files.root} with none left "
                f"of {listed(list(map(repr, empty)))}. Add images, or remove the class."
            )


def _data_files(
    files: ImageFiles, good: Mapping[str, Sequence[Path]], config: DataConfig, checks: ImageChecks
) -> DataFiles:
    used = set(chain.from_iterable(good.values()))

    def rebuild(splits: Mapping[str, Sequence[Path]], labels: tuple[str, ...]) -> Dataset:
        return image_dataset(relabelled(files, splits, labels), config, checks)

    legacy = files.legacy
    return DataFiles(
        files.root,
        good,
        files.suffixes,
        [*(path for path in files.targets if path not in used), *files.unused],
        checks.digest,
        rebuild,
        None if legacy is None else lambda: image_dataset(legacy(), config, checks),
        files.others,
    )


def relabelled(files: ImageFiles, splits: Mapping[str, Sequence[Path]], labels: tuple[str, ...]) -> ImageFiles:
    """Return files in other splits, with the numbers of other labels; raises DataError for a class without one."""
    targets: dict[Path, Any] = dict(files.targets)
    indexed = task_of(files.task).indexed
    if not indexed and labels != files.labels:
        raise DataError(
            f"Expected the labels of the run, {listed(labels)}. Received: {files.root} with {listed(files.labels)}. "
            "Train a new run."
        )
    if indexed:
        number = {label: i for i, label in enumerate(labels)}
        names = {path: files.labels[int(files.targets[path])] for path in chain.from_iterable(splits.values())}
        if new := sorted(set(names.values()) - number.keys()):
            raise DataError(
                f"Expected the classes of the run, {listed(labels)}. Received: {files.root} with {listed(new)}. Train "
                "a new run to add classes."
            )
        targets |= {path: number[name] for path, name in names.items()}
    return dataclasses.replace(files, splits=splits, labels=labels, targets=targets, legacy=None)


def _refined(dataset: Dataset, files: ImageFiles, good: Mapping[str, Sequence[Path]], checks: ImageChecks) -> Dataset:
    """Return a dataset with what reading all its images showed: depth, conversions and duplicates."""
    highest = checks.highest()
    bits = depth_of(highest) if highest else FULL
    pairs = list(_duplicates(good, checks))
    notes = [*_converted_line(good), *_depth_line(bits, highest), *_duplicate_lines(pairs, files)]
    named = [[name_in(files.root, path) for _, path in pair] for pair in pairs[:PAIRS]]
    details = {**dataset.details, **({"duplicates": named} if named else {})}
    return dataclasses.replace(dataset, notes=(*dataset.notes, *notes), bits=bits, details=details)


def _with_near(
    dataset: Dataset, good: Mapping[str, Sequence[Path]], config: DataConfig, checks: ImageChecks
) -> Dataset:
    """Return a dataset that names images which look like one of another split, if the recipe asks for it."""
    if not config.near_duplicates:
        return dataset
    root, found = dataset.files.root, near_pairs(good, config.near_duplicates, config.max_pixels)
    # Equal files have a line of their own.
    pairs = [pair for pair in found if checks.digest(pair[0][1]) != checks.digest(pair[1][1])]
    shown = [" ~ ".join(f"{split}: {name_in(root, path)}" for split, path in pair) for pair in pairs]
    line = f"Images of two splits that look alike, by a hash of 64 bits of which {config.near_duplicates} may differ: "
    line += f"{len(pairs):,}" + (f" ({listed(shown, 3)}). Remove those that are copies." if pairs else "")
    named = [[name_in(root, path) for _, path in pair] for pair in pairs[:PAIRS]]
    details = {**dataset.details, **({"near_duplicates": named} if named else {})}
    return dataclasses.replace(dataset, notes=(*dataset.notes, line), details=details)


def _converted_line(good: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    found = (path.suffix.lower() for path in chain.from_iterable(good.values()))
    counts = collections.Counter(suffix for suffix in found if suffix not in DECODED)
    if counts:
        yield "Converted by Pillow: " + ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common())


def _depth_line(bits: int, highest: int) -> Iterator[str]:
    if bits < FULL:
        yield f"Images of 16 bits use {bits} of them (highest value {highest:,}): scaled by 255 / {(1 << bits) - 1:,}"


def _duplicates(
    good: Mapping[str, Sequence[Path]], checks: ImageChecks
) -> Iterator[tuple[tuple[str, Path], tuple[str, Path]]]:
    """Yield files with the content of another one before, which comes first, each with its split."""
    first: dict[str, tuple[str, Path]] = {}
    for split, paths in good.items():
        for path in paths:
            known = first.setdefault(checks.digest(path), (split, path))
            if known[1] != path:
                yield known, (split, path)


def _duplicate_lines(pairs: Sequence[Any], files: ImageFiles) -> Iterator[str]:
    """Yield a line on images that are in two splits, and one on those with two labels."""

    def line(found: Sequence[Any], what: str, why: str) -> Iterator[str]:
        shown = [" = ".join(f"{split}: {name_in(files.root, path)}" for split, path in pair) for pair in found]
        if found:
            yield f"The same image {what}: {len(found):,} ({listed(shown, 3)}). {why}"

    crossing = [pair for pair in pairs if pair[0][0] != pair[1][0]]
    yield from line(crossing, "is in two splits", "Metrics of the later split are too good; remove the copies.")
    differing = [pair for pair in pairs if not same_labels(*(files.targets[path] for _, path in pair))]
    yield from line(differing, "has two labels", "Remove the wrong copies.")


def same_labels(one: Any, other: Any) -> bool:
    """Return whether two images have the same labels; missing ones are equal."""
    return bool(np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f"))


def require_files(root: Path, paths: Sequence[Path], skip_bad: bool) -> set[Path]:
    """Return the files that are missing; raises DataError for any unless bad files are skipped."""
    missing = {path for path in paths if not path.is_file()}
    if missing and not skip_bad:
        raise DataError(bad_message(root, dict.fromkeys(missing, "missing"), len(paths), "images of all annotations"))
    return missing
