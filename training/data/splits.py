"""Dividing data that is not divided: by shares, by a seed, each class alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.recipe.config import DataConfig
from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

NAMES = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)
# Options of the data that only what is divided here has.
OPTIONS = ("shares", "split_seed", "stratify")


def split_indices(
    count: int, config: DataConfig, classes: Sequence[int] | None = None, shares: Sequence[float] = SHARES
) -> dict[str, list[int]]:
    """Divide examples by a shuffle that depends on nothing but the seed and how many there are of each class.

    Of n examples (of a class, if each is divided alike) the first round(n x share of training) train, and so on; what
    is left over is tested. An example that stands alone in its class trains.

    Args:
        count: how many examples.
        config: `shares`, `split_seed` and `stratify`.
        classes: the class of each example, a number; none where there are no classes.
        shares: of training, validation and test examples where the recipe states none.

    Returns:
        The numbers of the examples by split in rising order; a split without any is left out.

    Raises:
        BadOption: the shares cannot be.
    """
    shares = check_fractions(config.shares) if config.shares else shares
    groups = [np.arange(count)]
    if classes is not None and config.stratify:
        of = np.asarray(classes)
        groups = [np.flatnonzero(of == number) for number in np.unique(of)]
    found: dict[str, list[int]] = {name: [] for name in NAMES}
    for group in groups:
        order = np.random.default_rng(config.split_seed).permutation(len(group))
        ends = [0, *_ends(len(group), shares), len(group)]
        for name, low, high in zip(NAMES, ends, ends[1:], strict=False):
            found[name].extend(group[order[low:high]].tolist())
    return {name: sorted(part) for name, part in found.items() if part}


def _ends(count: int, shares: Sequence[float]) -> list[int]:
    """Return where training and validation end; one example at least trains."""
    # 0.7 + 0.2 is a little less than 0.9, which would move a half to the other side.
    sums = (round(math.fsum(shares[:i]), 9) for i in (1, 2))
    return [max(1, round(share * count)) for share in sums]


def check_fractions(shares: Sequence[float]) -> tuple[float, ...]:
    """Return shares of training, validation and test examples, or raise BadOption."""
    whole = (*shares, 0.0) if len(shares) == 2 else tuple(shares)
    if len(whole) != 3 or min(whole) < 0 or min(whole[:2]) == 0 or abs(math.fsum(whole) - 1) > 1e-6:
        raise BadOption(
            "data.shares must be those of training, validation and, if any, test examples, which add up to 1, such as "
            f"[0.8, 0.1, 0.1]. Received: data.shares={list(shares)}"
        )
    return whole


def check_classes(labels: Sequence[str], numbers: _np.ndarray, name: str) -> None:
    """Raise DataError for a class with a single example, which could not be both learnt and judged."""
    for label, count in zip(labels, np.bincount(numbers, minlength=len(labels)), strict=True):
        if count < 2:
            raise DataError(
                f"Expected at least 2 examples of each class of {name}. Received: class {label!r} with {count}. "
                "Add examples, or leave the class out."
            )
