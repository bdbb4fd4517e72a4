"""The tables that scikit-learn ships, as rows of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from training.data.columns import cell_of


def sklearn_rows(load: Callable[[], Any], target: str) -> tuple[list[str], list[list[str]]]:
    """Return headings, the target's last, and rows of cells of what a function of scikit-learn's returns."""
    found = load()
    names = [*map(str, found.feature_names), target]
    classes = getattr(found, "target_names", None)
    answers = found.target if classes is None else [str(classes[number]) for number in found.target]
    return names, [[*map(cell_of, row), cell_of(answer)] for row, answer in zip(found.data, answers, strict=True)]
