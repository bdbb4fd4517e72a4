"""Rules that read texts as numbers: decimal commas, thousands separators, currencies, units, per cent, clock times."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from training.data.columns.missing import arrow, compute
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# Separators of thousands in addition to the point or the comma that is not the decimal sign.
SPACES = "'’ \u00a0\u2009\u202f"
CURRENCY = r"[A-Z]{0,3}\p{Sc}|USD|EUR|GBP|JPY|CHF|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|ZAR|Rs\.?|kr\.?|Fr\.?"
UNIT = r"[^\d\s.,:;()+\-][^\d.,:;()]{0,11}"
# Values of the suffixes that numbers of different magnitude have.
SCALES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "Mio": 1e6, "mn": 1e6, "B": 1e9, "bn": 1e9, "Mrd": 1e9, "T": 1e12}
CLOCK = r"^(?P<hours>\d{1,4}):(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d(?:\.\d+)?))?$"
BOOLEANS = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "on": 1.0}
BOOLEANS |= {"false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0, "off": 0.0}
# How texts become numbers, next to `decimal`: "plain", "scaled" by k, M, …, "clock" or "boolean".
PLAIN, SCALED, CLOCKED, BOOLEAN = "plain", "scaled", "clock", "boolean"
_SIGNS = ("first", "second", "last")


@dataclasses.dataclass(frozen=True)
class NumberRule:
    """Reads texts as numbers.

    Args:
        form: "plain"; "scaled", with suffixes such as k and M; "clock" for 12:30 or 12:30:59, in seconds; "boolean"
            for true or yes (1) and false or no (0).
        decimal: the decimal sign, "." or ",". The other one, spaces and apostrophes separate thousands.
        unit: the suffix of the numbers, such as "%" or "kg"; "" for none.
    """

    form: str = PLAIN
    decimal: str = "."
    unit: str = ""

    def parse(self, words: Any) -> _np.ndarray:
        """Return float64 (n,) for a pyarrow array of stripped strings; NaN for those that are no such number."""
        if self.form == BOOLEAN:
            lowered = compute.utf8_lower(words).to_pylist()
            return np.array([BOOLEANS.get(word, np.nan) for word in lowered], "float64")
        if self.form == CLOCKED:
            return _clock(words)
        values, units = parse_parts(words, self.decimal)
        if self.form == SCALED:
            return values * np.array([SCALES.get(unit, np.nan) for unit in units])
        # Without the sign, a number is another one than per cent.
        fits = units == self.unit
        return np.where(fits if self.unit == "%" else fits | (units == ""), values, np.nan)

    @property
    def described(self) -> str:
        """Return the rule in words."""
        signs = "decimal comma" if self.decimal == "," else ""
        return ", ".join(filter(None, (self.form if self.form != PLAIN else "", signs, self.unit)))


def parse_parts(words: Any, decimal: str) -> tuple[_np.ndarray, _np.ndarray]:
    """Return the number in each of the stripped texts, NaN without one, and the unit behind it, "" for none."""
    plain = compute.replace_substring_regex(words, pattern="[−–]", replacement="-")
    found = compute.extract_regex(plain, pattern=number_pattern(decimal))
    parts = {name: compute.struct_field(found, name) for name in ("bracket", *_SIGNS, "number", "unit")}
    digits = compute.replace_substring_regex(parts["number"], pattern=f"[{separators(decimal)}]", replacement="")
    digits = compute.replace_substring(digits, pattern=decimal, replacement=".")
    values = compute.cast(digits, arrow.float64()).to_numpy(zero_copy_only=False).astype("float64")
    negative = np.zeros(len(values), bool)
    for name, mark in (("bracket", "("), *((name, "-") for name in _SIGNS)):
        negative |= compute.equal(parts[name], mark).fill_null(False).to_numpy(zero_copy_only=False)
    units = np.array([_singular((unit or "").strip()) for unit in parts["unit"].to_pylist()], object)
    return np.where(negative, -values, values), units


def _singular(unit: str) -> str:
    """Return "year" for "years"."""
    return unit[:-1] if len(unit) > 3 and unit.endswith("s") else unit


def separators(decimal: str) -> str:
    """Return what may separate thousands."""
    return ("," if decimal == "." else ".") + SPACES


def number_pattern(decimal: str) -> str:
    """Return the expression of a number with its signs, currency and unit."""
    sign, between = f"\\{decimal}", f"[{separators(decimal)}]"
    grouped = rf"[1-9]\d{{0,2}}(?:{between}\d{{2,3}})*{between}\d{{3}}(?:{sign}\d*)?"
    body = rf"(?:{grouped}|\d+(?:{sign}\d*)?|{sign}\d+)(?:[eE][+-]?\d+)?"
    front = rf"(?P<bracket>\(?)(?P<first>[-+]?)\s*(?:{CURRENCY})?\s*(?P<second>[-+]?)"
    return rf"^{front}\s*(?P<number>{body})\s*(?P<unit>(?:{UNIT})?)(?P<last>-?)\)?$"


def _clock(words: Any) -> _np.ndarray:
    found = compute.extract_regex(words, pattern=CLOCK)
    total = np.zeros(len(words))
    for name, seconds in (("hours", 3600), ("minutes", 60), ("seconds", 1)):
        part = compute.struct_field(found, name)
        part = compute.if_else(compute.equal(part, ""), "0", part)
        total = total + seconds * compute.cast(part, arrow.float64()).to_numpy(zero_copy_only=False)
    return total


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well a rule reads the cells of a column.

    Args:
        rule: the rule.
        values: what it makes of each word, NaN for those that it cannot read.
        count: number of cells that it reads.
        unsure: whether another rule reads the same cells otherwise.
    """

    rule: Any
    values: _np.ndarray
    count: int
    unsure: bool = False


def fit_numbers(words: Any, counts: _np.ndarray, decimal: str = "") -> Fit:
    """Return the rule that reads most cells as numbers.

    Args:
        words: the different texts, a pyarrow array.
        counts: number of cells with each of them.
        decimal: the decimal sign, "" if it is unknown.
    """
    fits = [_fit(rule, words, counts) for rule in _candidates(words, counts, decimal)]
    best = max(fits, key=lambda fit: fit.count)
    unsure = any(fit.count == best.count and not _same(fit.values, best.values) for fit in fits if fit.count)
    return dataclasses.replace(best, unsure=unsure)


def _candidates(words: Any, counts: _np.ndarray, decimal: str) -> list[NumberRule]:
    rules = []
    for sign in (decimal,) if decimal else (".", ","):
        values, units = parse_parts(words, sign)
        known = ~np.isnan(values)
        seen = {unit: int(counts[known & (units == unit)].sum()) for unit in set(units[known])}
        if len(seen) > 1 and len(seen.keys() & SCALES.keys()) > 1:
            rules.append(NumberRule(SCALED, sign))
        seen.pop("", None)
        most = max(seen, key=lambda unit: (seen[unit], unit), default="")
        rules += [NumberRule(PLAIN, sign, most)] + [NumberRule(PLAIN, sign)] * bool(most)
    return [*rules, NumberRule(CLOCKED), NumberRule(BOOLEAN)]


def _fit(rule: NumberRule, words: Any, counts: _np.ndarray) -> Fit:
    values = rule.parse(words)
    return Fit(rule, values, int(counts[~np.isnan(values)].sum()))


def _same(one: _np.ndarray, other: _np.ndarray) -> bool:
    return bool(np.array_equal(one, other, equal_nan=True))
