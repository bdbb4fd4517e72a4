"""The tables of scikit-learn, as rows of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from training.data.columns.cells import Rows, number_cells, value_cells


def sklearn_rows(load: Callable[[], Any], target: str) -> Rows:
    """Return the cells of a scikit-learn dataset, the target last.

    Args:
        load: a function such as `sklearn.datasets.load_iris`.
        target: the name of the target column.
    """
    found = load()
    classes = getattr(found, "target_names", None)
    values = found.target.tolist() if classes is None else [str(classes[number]) for number in found.target]
    columns = {str(name): number_cells(found.data[:, place]) for place, name in enumerate(found.feature_names)}
    return Rows(columns | {target: value_cells(values)}, target)
