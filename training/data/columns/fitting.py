"""Fit the column schema on training rows: the type of each column, the rule that reads it, and what is left out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from training.data.columns.cells import Cells, number_cells, value_cells
from training.data.columns.column import CATEGORY, DATE, EMPTY, HASH, NUMBER, Column
from training.data.columns.dates import DateRule, date_parts, fit_dates
from training.data.columns.describing import column_notes, listed
from training.data.columns.missing import MISSING
from training.data.columns.numbers import BOOLEAN, PLAIN, SCALED, Fit, NumberRule, fit_numbers
from training.data.columns.schema import ColumnSchema
from zoo.common.errors import DataError
from zoo.common.lazy import np

# The fraction of the cells that a rule must read; with few different strays and many numbers, the smaller one.
ENOUGH, HALF = 0.9, 0.5
FEW_STRAYS, MANY_NUMBERS = 3, 20
# Texts that are examined to find the rule of a column.
SAMPLE = 20_000
# Columns with a different text in this fraction of at least so many cells hold names, ids or free text.
UNIQUE, LEAST = 0.95, 20
# The most categories with a value of their own; with more, texts are hashed into buckets. With this many training
# rows, a category that is seen once shares a value with unknown ones.
CATEGORIES, BUCKETS, SETTLED = 255, 512, 100
# Names of columns that identify rows.
IDENTIFIER = re.compile(
    r"unnamed:? ?\d*|index|rows?|row_?(id|names?|number|nr)|(.*[_ .-])?(id|uuid|guid|key)"
    r"|[A-Za-z]+Id|([A-Za-z]*[a-z])?ID"
)
# Quantiles of numbers, and texts that count as missing, which a column remembers.
QUANTILES, STRAYS = 48, 100


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted schema, and what there is to say about it.

    Args:
        schema: the column schema.
        left_out: the columns that are left out, by the reason.
        notes: what was guessed, a line each.
    """

    schema: ColumnSchema
    left_out: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Hints:
    """What is known of a table before its columns are fitted.

    Args:
        decimal: the decimal sign of all numbers, from `data.decimal`; "" if unknown.
        likely: the decimal sign that the file probably has, where the cells of a column decide nothing.
        order: what comes first in dates such as 03/04/2021, from `data.date_order`; "" if unknown.
        missing: spellings of missing cells.
        chosen: whether the user names the columns; then none is left out.
        nameless: names that the reader gave to columns without one.
    """

    decimal: str = ""
    likely: str = ""
    order: str = ""
    missing: tuple[str, ...] = MISSING
    chosen: bool = False
    nameless: tuple[str, ...] = ()


def fit_columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> ColumnSchema:
    """Return the column schema fitted on training rows of cells in the order of the columns; see `fit_cells`."""
    columns = {name: value_cells(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}
    return fit_cells(columns, Hints(chosen=True)).schema


def fit_cells(columns: Mapping[str, Cells], hints: Hints = Hints()) -> Fitted:
    """Return the column schema fitted on the cells of training rows.

    Most cells of a column decide its type: dates, numbers (also with decimal commas, thousands separators, currencies
    or units, per cent), booleans, or categories. Other cells of such a column count as missing.

    Args:
        columns: the cells of the training rows by column.
        hints: what is known of the table.

    Raises:
        DataError: no column is left.
    """
    fits = {name: fit_texts(cells, hints.decimal, hints.order) for name, cells in columns.items()}
    signs = [sign for name, fit in fits.items() if (sign := _sign(columns[name], fit))]
    likely = hints.decimal or (max(set(signs), key=signs.count) if signs else hints.likely)
    found, left_out, notes = [], dict[str, list[str]](), list[str]()
    for name, cells in columns.items():
        fit = fits[name]
        if fit and fit.unsure and isinstance(fit.rule, NumberRule) and likely:
            fit = dataclasses.replace(fit_texts(cells, likely, hints.order) or fit, unsure=True)
        reason = "" if hints.chosen else _useless(name, cells, fit, hints)
        if reason:
            left_out.setdefault(reason, []).append(name)
            continue
        found.append(_column(name, cells, fit))
        notes += column_notes(found[-1], cells, fit, settled=bool(hints.decimal or signs))
    if not found:
        raise DataError(
            f"Expected columns to learn from. Received: {listed(left_out)}. Name feature columns: --set "
            "data.columns='[\"NAME\"]'"
        )
    said = [f"Left out: {listed(left_out)}; to use them, name all feature columns in data.columns"] if left_out else []
    return Fitted(ColumnSchema(tuple(found), hints.missing), left_out, (*said, *notes))


def fit_texts(cells: Cells, decimal: str = "", order: str = "") -> Fit | None:
    """Return the rule that reads the texts of a column as numbers or dates, None for plain numbers and for categories.

    Args:
        cells: the cells.
        decimal: the decimal sign, "" if it is unknown.
        order: what comes first in dates, "" if it is unknown.
    """
    if not len(cells.words) or not (cells.codes >= 0).any():
        return _fit_plain(cells)
    places = np.flatnonzero(cells.counts)
    places = places[np.unique(np.linspace(0, len(places) - 1, min(SAMPLE, len(places))).astype("int64"))]
    words, counts = cells.words.take(places), cells.counts[places]
    plain = int((~np.isnan(cells.numbers)).sum())
    fits = [fit_numbers(words, counts, decimal), fit_dates(words, counts, order)]
    fits = [fit for fit in fits if _reads(fit, counts, plain)]
    if not fits or _are_codes(cells):
        return None
    best = fits[-1]
    return dataclasses.replace(best, values=best.rule.parse(cells.words))


def _reads(fit: Fit, counts: Any, plain: int) -> bool:
    """Return whether a rule reads enough of the texts, of which there are `counts`, and of the plain numbers."""
    known = int((~np.isnan(fit.values)).sum())
    if isinstance(fit.rule, DateRule):
        return fit.count >= ENOUGH * (counts.sum() + plain)
    if fit.rule.form == BOOLEAN:
        return fit.count == counts.sum() and not plain
    few = len(fit.values) - known <= FEW_STRAYS and plain + known > MANY_NUMBERS
    return fit.count + plain >= (HALF if few else ENOUGH) * (counts.sum() + plain)


def _fit_plain(cells: Cells) -> Fit | None:
    """Return the rule of dates for numbers such as 20240131."""
    numbers = cells.numbers[np.isfinite(cells.numbers)]
    if len(numbers) < 2 or numbers.min() < 18000101 or numbers.max() > 21001231 or (numbers % 1).any():
        return None
    words = number_cells(numbers).as_texts().words
    fit = fit_dates(words, np.ones(len(words), "int64"))
    return fit if fit.rule.form == "yearmonthday" and not np.isnan(fit.values).any() else None


def _are_codes(cells: Cells) -> bool:
    """Return whether the texts are digits that begin with 0: postal codes and the like are no numbers."""
    words = [word for word, count in zip(cells.words[:SAMPLE].to_pylist(), cells.counts, strict=False) if count]
    return any(re.fullmatch(r"0\d+", word) for word in words) and all(word.isdigit() for word in words)


def _sign(cells: Cells, fit: Fit | None) -> str:
    """Return the decimal sign that the numbers of a column have without a doubt, "" for none."""
    if fit is None:
        some = cells.numbers[:SETTLED]
        return "." if (some[np.isfinite(some)] % 1 > 0).any() else ""
    if not isinstance(fit.rule, NumberRule) or fit.unsure or fit.rule.form not in (PLAIN, SCALED):
        return ""
    return fit.rule.decimal if (np.abs(fit.values[~np.isnan(fit.values)]) % 1 > 0).any() else ""


def _useless(name: str, cells: Cells, fit: Fit | None, hints: Hints) -> str:
    """Return why a column is left out, "" for one that is used."""
    present = cells.present
    if not present.any():
        return "empty"
    count = int(present.sum())
    if present.all() and _is_constant(cells):
        return "one value only"
    if fit is not None and isinstance(fit.rule, DateRule):
        return ""
    if fit is None and (cells.codes >= 0).sum() > count / 2:
        unique = count >= LEAST and _different(cells) >= UNIQUE * count
        return "a different text in almost every row" if unique else ""
    unnamed = name in hints.nameless or IDENTIFIER.fullmatch(name) or IDENTIFIER.fullmatch(name.lower())
    if fit is not None and fit.rule != NumberRule():
        return ""
    numbers = cells.numbers if fit is None else cells.by_word(fit.values)
    if unnamed and count >= 2 and _different(cells) == count and not (numbers[present] % 1).any():
        return "a different number in every row" + ", and no name" * (name in hints.nameless)
    return ""


def _is_constant(cells: Cells) -> bool:
    texts = int((cells.counts > 0).sum())
    numbers = cells.numbers[~np.isnan(cells.numbers)]
    return texts + bool(len(numbers)) == 1 and (not len(numbers) or numbers.min() == numbers.max())


def _different(cells: Cells) -> int:
    numbers = cells.numbers[~np.isnan(cells.numbers)]
    return len(np.unique(numbers)) + int((cells.counts > 0).sum())


def _column(name: str, cells: Cells, fit: Fit | None) -> Column:
    """Return the fitted column."""
    if fit is not None and isinstance(fit.rule, DateRule):
        return _dates(name, cells, fit)
    if (fit is None and (cells.codes >= 0).any()) or not cells.present.any():
        return _categories(name, cells)
    rule = fit.rule if fit else NumberRule()
    column = Column(name, NUMBER, form=rule.form, decimal=rule.decimal, unit=rule.unit, strays=_strays(cells, fit))
    values = column.parse(cells)
    known = values[~np.isnan(values)]
    if not len(known):
        return _categories(name, cells)
    some = known[:: max(1, len(known) // SAMPLE)]
    bins = () if rule.form == BOOLEAN else np.unique(np.quantile(some, np.linspace(0, 1, QUANTILES + 1)))
    gaps = len(values) - len(known)
    return dataclasses.replace(
        column, mean=float(known.mean()), missing=gaps > 0, gaps=gaps, bins=tuple(map(float, bins))
    )


def _dates(name: str, cells: Cells, fit: Fit) -> Column:
    column = Column(name, DATE, form=fit.rule.form, utc=fit.rule.utc, strays=_strays(cells.as_texts(), fit))
    days = column.parse(cells)
    first, clock = float(np.floor(np.nanmin(days))), bool((days[~np.isnan(days)] % 1 > 0).any())
    means = np.nanmean(date_parts(days, first, clock=clock).astype("float64"), axis=0)
    gaps = int(np.isnan(days).sum())
    return dataclasses.replace(column, first=first, fills=tuple(map(float, means)), missing=gaps > 0, gaps=gaps)


def _strays(cells: Cells, fit: Fit | None) -> tuple[str, ...]:
    """Return the texts that a rule cannot read, the most frequent ones."""
    if fit is None or not len(cells.words) or len(fit.values) != len(cells.words):
        return ()
    strays = np.where(np.isnan(fit.values), cells.counts, 0)
    places = np.argsort(-strays, kind="stable")[: min(STRAYS, int((strays > 0).sum()))]
    return tuple(cells.words.take(places).to_pylist())


def _categories(name: str, cells: Cells) -> Column:
    cells = cells.as_texts()
    counts, gaps = cells.counts, int((cells.codes < 0).sum())
    least = 2 if len(cells) >= SETTLED else 1
    kept, rare = np.flatnonzero(counts >= least), bool(((counts > 0) & (counts < least)).any())
    if len(kept) > CATEGORIES:
        return Column(name, HASH, missing=gaps > 0, gaps=gaps, buckets=BUCKETS)
    words = sorted(cells.words.take(kept).to_pylist())
    return Column(name, CATEGORY, categories=tuple([EMPTY] * (gaps > 0) + words), gaps=gaps, other=rare)
