"""Rows of a table as strings, encoded by the column schema inside a TensorFlow graph.

The operations are those of `training.data.columns`, cell by cell: RE2 expressions, which pyarrow and TensorFlow share,
read numbers and dates. A text that is no number or date, and was none in the training rows, fails the request.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from training.data.columns.column import DATE, EMPTY, HASH, LARGEST, Column
from training.data.columns.dates import FORMS, MONTHS, PARTS, PIVOT
from training.data.columns.numbers import (
    BOOLEAN,
    BOOLEANS,
    CLOCK,
    CLOCKED,
    SCALED,
    SCALES,
    number_pattern,
    separators,
)
from training.data.columns.schema import ColumnSchema
from training.data.outputs import identifiers
from zoo.common.lazy import tf

if TYPE_CHECKING:
    import tensorflow as _tf

# White space around a cell, as pyarrow's `utf8_trim_whitespace` finds it.
SPACE = r"[\t-\r\x1c-\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
NAN = float("nan")


def row_inputs(schema: ColumnSchema) -> dict[str, str]:
    """Return the column of each input of the signature for rows, by the name of the input."""
    return dict(zip(identifiers(schema.names, "column"), schema.names, strict=True))


def encode_rows(schema: ColumnSchema, cells: Sequence[_tf.Tensor]) -> _tf.Tensor:
    """Return float32 (n, width) for strings (n,) of each column; the graph of `ColumnSchema.encode_records`."""
    parts = []
    for column, texts in zip(schema.columns, cells, strict=True):
        texts = tf.strings.regex_replace(texts, f"^{SPACE}+|{SPACE}+$", "")
        lowered = tf.strings.lower(texts, encoding="utf-8")
        gaps = tf.reduce_any(lowered[:, None] == tf.constant(schema.spellings), axis=1)
        encode = _rule_values if column.rule_reads else _one_hot
        parts.append(encode(column, tf.where(gaps, EMPTY, texts), gaps))
    return tf.concat(parts, axis=1)


def _one_hot(column: Column, texts: _tf.Tensor, gaps: _tf.Tensor) -> _tf.Tensor:
    """Return the one-hot values (n, width) of a category or of the bucket of a hash."""
    if column.kind == HASH:
        codes = tf.strings.to_hash_bucket_fast(texts, column.buckets)
        codes = tf.where(gaps, tf.constant(column.buckets if column.missing else -1, tf.int64), codes)
        return tf.one_hot(codes, column.width)
    found = texts[:, None] == tf.constant(list(column.categories), tf.string)
    if not column.other:
        return tf.cast(found, tf.float32)
    return tf.cast(tf.concat([found, ~tf.reduce_any(found, axis=1, keepdims=True)], axis=1), tf.float32)


def _rule_values(column: Column, texts: _tf.Tensor, gaps: _tf.Tensor) -> _tf.Tensor:
    """Return the values (n, width) of numbers or dates, filled, and the mark of missing ones."""
    values = _days(column, texts) if column.kind == DATE else _numbers(column, texts)
    values = tf.where(tf.abs(values) < LARGEST, values, NAN)
    unknown = tf.math.is_nan(values) & ~gaps & ~tf.reduce_any(texts[:, None] == tf.constant(_strays(column)), axis=1)
    what = "dates" if column.kind == DATE else "numbers"
    message = f"Expected {what} in the column {column.name!r}, or an empty cell. Received:"
    # The error names the first of them.
    check = tf.debugging.Assert(~tf.reduce_any(unknown), [message, tf.boolean_mask(texts, unknown)], summarize=1)
    with tf.control_dependencies([check]):
        values = tf.identity(values)
    empty = tf.math.is_nan(values)
    parts = _date_parts(column, values) if column.kind == DATE else tf.cast(values, tf.float32)[:, None]
    fills = column.fills if column.kind == DATE else (column.mean,)
    filled = tf.where(empty[:, None], tf.constant(fills, tf.float32), parts)
    return tf.concat([filled, tf.cast(empty, tf.float32)[:, None]], axis=1) if column.missing else filled


def _strays(column: Column) -> list[str]:
    return list(column.strays) or [EMPTY]


def _numbers(column: Column, texts: _tf.Tensor) -> _tf.Tensor:
    """Return float64 (n,); the graph of `NumberRule.parse`."""
    if column.form == BOOLEAN:
        lowered = tf.strings.lower(texts, encoding="utf-8")
        return _chosen(lowered, BOOLEANS)
    if column.form == CLOCKED:
        known, part = _matched(texts, CLOCK)
        total = sum(
            _number(part(name), known) * unit for name, unit in (("hours", 3600), ("minutes", 60), ("seconds", 1))
        )
        return tf.where(known, total, NAN)
    known, part = _matched(tf.strings.regex_replace(texts, "[−–]", "-"), number_pattern(column.decimal))
    digits = tf.strings.regex_replace(part("number"), f"[{separators(column.decimal)}]", "")
    values = _number(tf.strings.regex_replace(digits, re.escape(column.decimal), "."), known)
    negative = part("bracket") == "("
    for sign in ("first", "second", "last"):
        negative |= part(sign) == "-"
    # "year" for "years".
    unit = tf.strings.regex_replace(part("unit"), f"^{SPACE}+|{SPACE}+$", "")
    unit = tf.strings.regex_replace(unit, "(?s)^(.{3,})s$", r"\1")
    values = tf.where(negative, -values, values)
    if column.form == SCALED:
        return tf.where(known, values * _chosen(unit, SCALES), NAN)
    fits = (unit == column.unit) | (column.unit != "%" and unit == "")
    return tf.where(known & fits, values, NAN)


def _chosen(texts: _tf.Tensor, values: dict[str, float]) -> _tf.Tensor:
    """Return the value float64 (n,) of each text, NaN for others."""
    equal = texts[:, None] == tf.constant(list(values))
    found = tf.reduce_sum(tf.where(equal, tf.constant(list(values.values()), tf.float64), 0.0), axis=1)
    return tf.where(tf.reduce_any(equal, axis=1), found, NAN)


def _matched(texts: _tf.Tensor, pattern: str) -> tuple[_tf.Tensor, Callable[[str], _tf.Tensor]]:
    """Return whether each text matches an expression, and a function from the name of a group to its texts."""
    names = re.findall(r"\(\?P<(\w+)>", pattern)
    known = tf.strings.regex_full_match(texts, pattern)

    def part(name: str) -> _tf.Tensor:
        if name not in names:
            return tf.fill(tf.shape(texts), EMPTY)
        found = tf.strings.regex_replace(texts, pattern, rf"\{names.index(name) + 1}", replace_global=False)
        return tf.where(known, found, EMPTY)

    return known, functools.cache(part)


def _number(texts: _tf.Tensor, known: _tf.Tensor) -> _tf.Tensor:
    """Return float64 (n,), 0 for an empty text."""
    return tf.strings.to_number(tf.where(known & (texts != EMPTY), texts, "0"), tf.float64)


def _days(column: Column, texts: _tf.Tensor) -> _tf.Tensor:
    """Return days since 1970 as float64 (n,); the graph of `DateRule.parse`."""
    known, part = _matched(texts, FORMS[column.form])
    year = tf.cast(_number(part("year"), known), tf.int64)
    year = tf.where(year < 100, year + tf.where(year < PIVOT, tf.constant(2000, tf.int64), 1900), year)
    month = _month(part("month"), known)
    day = tf.cast(_number(part("day"), known), tf.int64) if "<day>" in FORMS[column.form] else tf.ones_like(year)
    known &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (year >= 1000)
    days = _days_of(year, tf.where(known, month, 1), day)
    # The 30th of February is the 2nd of March.
    known &= _date_of(days)[1] == month
    return tf.where(known, tf.cast(days, tf.float64) + _time(column, part, known), NAN)


def _month(texts: _tf.Tensor, known: _tf.Tensor) -> _tf.Tensor:
    """Return the numbers of months that are numbers or names, int64 (n,), 0 for others."""
    short = tf.strings.substr(tf.strings.lower(texts), 0, 3)
    named = short[:, None] == tf.constant(MONTHS)
    by_name = tf.reduce_sum(tf.where(named, tf.range(1, 13, dtype=tf.int64), 0), axis=1)
    plain = known & tf.strings.regex_full_match(texts, r"\d+")
    return tf.where(plain, tf.cast(_number(texts, plain), tf.int64), by_name)


def _time(column: Column, part: Callable[[str], _tf.Tensor], known: _tf.Tensor) -> _tf.Tensor:
    """Return the time of the day as a fraction of it, less the offset from UTC; NaN for one that does not exist."""
    hour, minute, second = (_number(part(name), known) for name in ("hour", "minute", "second"))
    half = tf.strings.lower(part("half"))
    hour = tf.where((half == "p") & (hour < 12), hour + 12, tf.where((half == "a") & (hour == 12), hour - 12, hour))
    fraction = (hour * 3600 + minute * 60 + second) / 86400
    fraction = tf.where((hour < 24) & (minute < 60) & (second < 60), fraction, NAN)
    if not column.utc:
        return fraction
    zone, form = part("zone"), r"^[+-](\d{2}):?(\d{2})$"
    known = tf.strings.regex_full_match(zone, form)
    hours, minutes = (
        _number(tf.strings.regex_replace(zone, form, group, replace_global=False), known) for group in (r"\1", r"\2")
    )
    offset = (hours * 60 + minutes) / 1440
    return fraction - tf.where(tf.strings.regex_full_match(zone, "-.*"), -offset, offset)


def _date_parts(column: Column, days: _tf.Tensor) -> _tf.Tensor:
    """Return the numbers of dates, float32 (n, 5 or 6); the graph of `date_parts`."""
    known = ~tf.math.is_nan(days)
    days = tf.where(known, days, 0.0)
    whole = tf.cast(tf.floor(days), tf.int64)
    year, month, day = _date_of(whole)
    weekday = tf.math.floormod(whole + 3, 7)
    parts = [*(tf.cast(value, tf.float64) for value in (year, month, day, weekday)), days - column.first]
    parts += [(days - tf.cast(whole, tf.float64)) * 24] if len(column.fills) == len(PARTS) else []
    return tf.cast(tf.stack(parts, axis=1), tf.float32)


def _days_of(year: _tf.Tensor, month: _tf.Tensor, day: _tf.Tensor) -> _tf.Tensor:
    """Return days since 1970 of dates of the Gregorian calendar, in years that begin in March, int64 (n,)."""
    year = tf.where(month <= 2, year - 1, year)
    month = tf.math.floormod(month + 9, 12)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - 719468


def _date_of(days: _tf.Tensor) -> tuple[_tf.Tensor, _tf.Tensor, _tf.Tensor]:
    """Return year, month and day of days since 1970, int64 (n,) each; the inverse of `_days_of`."""
    days = days + 719468
    era = days // 146097
    rest = days - era * 146097
    years = (rest - rest // 1460 + rest // 36524 - rest // 146096) // 365
    of_year = rest - (365 * years + years // 4 - years // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    year = years + era * 400
    return tf.where(month >= 10, year + 1, year), tf.where(month < 10, month + 3, month - 9), day
