"""Splitting data that has no splits: by fractions and a seed, stratified by class."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.recipe.config import DataConfig
from training.recipe.rules import check_fractions
from zoo.common.errors import DataError
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

NAMES = ("train", "validation", "test")
FRACTIONS = (0.8, 0.1, 0.1)
# Fields of DataConfig that apply to datasets which are split here.
OPTIONS = ("split_fractions", "split_seed", "stratify")


def split_indices(
    count: int, config: DataConfig, classes: Sequence[int] | None = None, fractions: Sequence[float] = FRACTIONS
) -> dict[str, list[int]]:
    """Split examples by a shuffle that depends only on the seed and the number of examples per class.

    Of n examples (of a class, if stratified) the first round(n x training fraction) are the training split, and so on;
    the rest is the test split. The only example of a class is a training example.

    Args:
        count: number of examples.
        config: `split_fractions`, `split_seed` and `stratify`.
        classes: class index of each example; None without classes.
        fractions: of training, validation and test examples where the recipe has none.

    Returns:
        The numbers of the examples by split in rising order; empty splits are left out.

    Raises:
        BadOption: invalid fractions.
    """
    fractions = check_fractions(config.split_fractions) if config.split_fractions else fractions
    splits: dict[str, list[int]] = {name: [] for name in NAMES}
    for group in _groups(count, classes if config.stratify else None):
        order = np.random.default_rng(config.split_seed).permutation(len(group))
        _extend(splits, group[order], fractions)
    return _sorted(splits)


def split_by_name(
    names: Sequence[str], config: DataConfig, classes: Sequence[int], fractions: Sequence[float] = FRACTIONS
) -> dict[str, list[int]]:
    """Split files by the hash of their names and the seed.

    Stratified, the files of a class in the order of their hashes are split like `split_indices`, so that the fractions
    are exact, and a file that is added moves only those whose hashes are next to the borders. Otherwise the hash of a
    file alone decides, so that no other file ever moves it, and the fractions are those of chance.

    Args:
        names: of the files, relative to their folder.
        config: `split_fractions`, `split_seed` and `stratify`.
        classes: class index of each file.
        fractions: of training, validation and test examples where the recipe has none.

    Returns:
        See `split_indices`.
    """
    fractions = check_fractions(config.split_fractions) if config.split_fractions else fractions
    places = np.array([place_of(name, config.split_seed) for name in names])
    splits: dict[str, list[int]] = {name: [] for name in NAMES}
    if config.stratify:
        for group in _groups(len(names), classes):
            _extend(splits, group[np.argsort(places[group], kind="stable")], fractions)
        return _sorted(splits)
    for number in np.argsort(places, kind="stable").tolist():
        splits[split_of_place(places[number], fractions)].append(number)
    for name, fraction in zip(NAMES[1:], fractions[1:], strict=False):
        # A few files can leave a split empty by chance.
        if fraction and not splits[name] and len(splits["train"]) > 1:
            splits[name].append(splits["train"].pop())
    return _sorted(splits)


def place_of(name: str, seed: int) -> float:
    """Return the hash of the name of a file as a number from 0 to 1, the same on every system."""
    # Systems store accents as characters of their own, or not.
    text = f"{seed}/{unicodedata.normalize('NFC', name)}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / (1 << 64)


def split_of_place(place: float, fractions: Sequence[float]) -> str:
    """Return the split of a file by its `place_of`."""
    first, second = (math.fsum(fractions[:i]) for i in (1, 2))
    if place < first:
        return NAMES[0]
    return NAMES[2] if place >= second and fractions[2] else NAMES[1]


def _groups(count: int, classes: Sequence[int] | None) -> list[_np.ndarray]:
    """Return the numbers of the examples of each class; of all, without classes."""
    if classes is None:
        return [np.arange(count)]
    of = np.asarray(classes)
    return [np.flatnonzero(of == number) for number in np.unique(of)]


def _extend(splits: dict[str, list[int]], ordered: _np.ndarray, fractions: Sequence[float]) -> None:
    """Add the first examples of a group to the training split, the next to validation, and the rest to test."""
    ends = [0, *_ends(len(ordered), fractions), len(ordered)]
    for name, low, high in zip(NAMES, ends, ends[1:], strict=False):
        splits[name].extend(ordered[low:high].tolist())


def _sorted(splits: dict[str, list[int]]) -> dict[str, list[int]]:
    return {name: sorted(part) for name, part in splits.items() if part}


def _ends(count: int, fractions: Sequence[float]) -> list[int]:
    """Return where the training and validation splits end; there is at least one training example."""
    # 0.7 + 0.2 is a little less than 0.9, which would move a half to the other side.
    sums = (round(math.fsum(fractions[:i]), 9) for i in (1, 2))
    return [max(1, round(fraction * count)) for fraction in sums]


def check_classes(labels: Sequence[str], numbers: _np.ndarray, name: str) -> None:
    """Raise DataError for a class with a single example, which cannot be in two splits.

    Args:
        labels: names of the classes.
        numbers: class index of each example.
        name: the target, for the message.
    """
    for label, count in zip(labels, np.bincount(numbers, minlength=len(labels)), strict=True):
        if count < 2:
            raise DataError(
                f"Expected at least 2 examples of each class of {name}. Received: class {label!r} with {count}. "
                "Add examples, or leave the class out."
            )
