"""Rows of a table as the vectors that an artifact of it takes, by the column contract in its metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.manifest import find_folder, read_manifest
from training.data.columns import ColumnSchema
from training.data.readers.table_files import read_table, select_columns
from zoo.common.errors import RunError

if TYPE_CHECKING:
    import numpy as np


def encode_rows(path: Path, rows: Sequence[Mapping[str, Any]] | str | os.PathLike[str]) -> np.ndarray:
    """Return float32 (n, features) of rows; see `export.vectors`."""
    folder = find_folder(path)
    preprocessing = read_manifest(folder)["metadata"].get("tabular")
    if preprocessing is None:
        raise RunError(f"Expected an artifact of a network for tables. Received: {folder}, which has no columns.")
    table = ColumnSchema.from_json(preprocessing)
    if isinstance(rows, (str, os.PathLike)):
        names, cells = read_table(os.fspath(rows), "rows")
        return table.encode(select_columns(names, cells, list(table.names), "rows"))
    return table.encode_records(rows)
