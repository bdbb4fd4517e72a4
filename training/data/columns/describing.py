"""What was found in the columns of a table, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from training.data.columns.cells import Cells
from training.data.columns.column import DATE, LARGEST, Column
from training.data.columns.numbers import Fit, NumberRule
from zoo.common.lazy import np

# Names in a line, columns in a table, and characters of a cell.
LISTED, SHOWN, WIDEST = 10, 40, 40
HEAD = ("column", "type", "missing cells become", "values")


def listed(left_out: Mapping[str, Sequence[str]]) -> str:
    """Return the columns that are left out with the reasons: "'id', 'name' (a reason); 'x' (another)"."""
    parts = []
    for reason, names in left_out.items():
        more = f", … ({len(names)})" if len(names) > LISTED else ""
        parts.append(f"{', '.join(map(repr, names[:LISTED]))}{more} ({reason})")
    return "; ".join(parts)


def column_notes(column: Column, cells: Cells, fit: Fit | None, *, settled: bool) -> Iterator[str]:
    """Yield what was guessed of a column.

    Args:
        column: the fitted column.
        cells: its cells in the training rows.
        fit: the rule that reads its texts, None for plain numbers and categories.
        settled: whether the decimal sign of the table is known.
    """
    if column.rule_reads and (strays := _stray_count(cells, fit)):
        kind = "dates" if column.kind == DATE else "numbers"
        shown = ", ".join(map(repr, column.strays[:3])) or "infinite"
        yield f"{strays:,} training cells of {column.name!r} are no {kind} ({shown}): they count as missing"
    if column.utc:
        yield f"times of {column.name!r} with an offset are converted to UTC"
    if fit is None or not fit.unsure or not len(cells.words):
        return
    place = int(np.flatnonzero(~np.isnan(fit.values))[0])
    example = cells.words[place].as_py()
    if not isinstance(fit.rule, NumberRule):
        yield (
            f"dates of {column.name!r} are read as {fit.rule.form}, such as {example!r}; data.date_order=day or month "
            "sets the order"
        )
    elif not settled:
        yield f"{column.name!r}: {example!r} is read as {fit.values[place]:g}; data.decimal sets the decimal sign"


def _stray_count(cells: Cells, fit: Fit | None) -> int:
    """Return the number of cells with a text that the rule cannot read, or an infinite number."""
    found = int((np.abs(cells.numbers) >= LARGEST).sum())
    if fit is not None and len(fit.values) == len(cells.words):
        found += int(cells.counts[np.isnan(fit.values)].sum())
    return found


def described_columns(columns: Sequence[Column]) -> list[list[str]]:
    """Return a table of the columns, `HEAD` and a row for each column."""
    return [list(HEAD), *(list(column.described) for column in columns)]


def column_lines(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of `described_columns`, at most `SHOWN` columns."""
    shown = table[: SHOWN + 1]
    widths = [min(WIDEST, max(len(row[i]) for row in shown)) for i in range(len(HEAD))]
    for row in shown:
        yield "  ".join(_cut(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if len(table) > len(shown):
        yield f"… and {len(table) - len(shown):,} more columns"


def _cut(text: str, width: int) -> str:
    text = " ".join(text.split())
    return (text if len(text) <= width else text[: width - 1] + "…").ljust(width)
