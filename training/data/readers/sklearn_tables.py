"""The tables of scikit-learn, as rows of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from training.data.columns import cell_of


def sklearn_rows(load: Callable[[], Any], target: str) -> tuple[list[str], list[list[str]]]:
    """Return the column names, the target last, and the rows of cells of a scikit-learn dataset.

    Args:
        load: a function such as `sklearn.datasets.load_iris`.
        target: the name of the target column.
    """
    found = load()
    names = [*map(str, found.feature_names), target]
    classes = getattr(found, "target_names", None)
    cells = found.target if classes is None else [str(classes[number]) for number in found.target]
    return names, [[*map(cell_of, row), cell_of(value)] for row, value in zip(found.data, cells, strict=True)]
