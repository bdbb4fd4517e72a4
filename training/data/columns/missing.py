"""Missing cells: one notion of them, for features and targets."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from zoo.common.lazy import LazyModule, np

arrow = LazyModule("pyarrow")
compute = LazyModule("pyarrow.compute", "pyarrow")

# Cells that mean a missing value, in any case and between any white space; `data.missing` replaces them.
MISSING = (
    *("", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "null", "(null)", "none", "nil"),
    *("-", "--", "–", "—", "?", ".", "#null!", "#value!", "#div/0!", "#ref!", "#num!", "#name?"),
)


def spellings(missing: Iterable[str]) -> tuple[str, ...]:
    """Return the spellings of a missing cell as they are compared; those of `MISSING` if none are given."""
    return tuple(dict.fromkeys(str(text).strip().lower() for text in missing)) or MISSING


def is_missing(texts: Any, missing: tuple[str, ...] = MISSING) -> Any:
    """Return whether each text of a pyarrow array of stripped strings is a missing cell, as a pyarrow array."""
    return compute.is_in(compute.utf8_lower(texts), value_set=arrow.array(missing, arrow.string()))


def cell_of(value: Any) -> str:
    """Return a value as the cell of a table; floats round-trip."""
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return str(value)
