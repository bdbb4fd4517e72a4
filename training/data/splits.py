"""Splitting data that has no splits: by fractions and a seed, stratified by class."""

from __future__ import annotations

import math
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
    groups = [np.arange(count)]
    if classes is not None and config.stratify:
        of = np.asarray(classes)
        groups = [np.flatnonzero(of == number) for number in np.unique(of)]
    splits: dict[str, list[int]] = {name: [] for name in NAMES}
    for group in groups:
        order = np.random.default_rng(config.split_seed).permutation(len(group))
        ends = [0, *_ends(len(group), fractions), len(group)]
        for name, low, high in zip(NAMES, ends, ends[1:], strict=False):
            splits[name].extend(group[order[low:high]].tolist())
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
