"""Rows of a table as the input of an artifact, encoded by the column schema in its metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.manifest import find_folder, read_manifest
from training.data.columns.schema import ColumnSchema
from training.data.readers.table_files import Reading, read_rows, select_columns
from zoo.common.errors import RunError

if TYPE_CHECKING:
    import numpy as np


def encode_table_rows(path: Path, rows: Sequence[Mapping[str, Any]] | str | os.PathLike[str]) -> np.ndarray:
    """Return float32 (n, features) of rows; see `export.encode_rows`."""
    folder = find_folder(path)
    schema = read_manifest(folder)["metadata"].get("tabular")
    if schema is None:
        raise RunError(f"Expected an artifact of a tabular model. Received: {folder}, which has no columns.")
    columns = ColumnSchema.from_json(schema)
    if isinstance(rows, (str, os.PathLike)):
        # A column that had texts in training has texts here, also where all of them look like plain numbers.
        reading = Reading(missing=columns.spellings, texts=lambda name, _: name in columns.texts)
        found = select_columns(read_rows(os.fspath(rows), reading, "rows"), columns.names, "rows")
        return columns.encode_cells(list(found.values()))
    return columns.encode_records(rows)
