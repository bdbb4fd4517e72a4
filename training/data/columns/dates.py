"""Rules that read texts as dates, and the numbers that stand for a date."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from training.data.columns.missing import arrow, compute
from training.data.columns.numbers import Fit
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

_DAY, _YEAR, _NAME = r"(?P<day>\d{1,2})", r"(?P<year>\d{4}|\d{2})", r"(?P<month>[A-Za-z]{3,9})\.?"
_MONTH, _LONG, _WEEKDAY = r"(?P<month>\d{1,2})", r"(?P<year>\d{4})", r"(?:[A-Za-z]{3,9}\.?,? )?"
_TIME = (
    r"(?:(?:T| |, )\s*(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?(?: ?(?P<half>[AaPp])[Mm])?"
    r"(?: ?(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}))?)?$"
)
# Forms of dates by name: expressions with the parts of a date.
FORMS = {
    "year-month-day": f"^{_LONG}[-/.]{_MONTH}[-/.]{_DAY}{_TIME}",
    "day-month-year": f"^{_DAY}[-/.]{_MONTH}[-/.]{_YEAR}{_TIME}",
    "month-day-year": f"^{_MONTH}[-/.]{_DAY}[-/.]{_YEAR}{_TIME}",
    "day month year": f"^{_WEEKDAY}{_DAY}[ .-]+{_NAME},?[ -]{_YEAR}{_TIME}",
    "month day, year": rf"^{_WEEKDAY}{_NAME} {_DAY}(?:st|nd|rd|th)?,? {_LONG}{_TIME}",
    "yearmonthday": r"^(?P<year>(?:18|19|20)\d{2})(?P<month>[01]\d)(?P<day>[0-3]\d)$",
    "year-month": f"^{_LONG}[-/]{_MONTH}$",
    "month year": f"^{_NAME},? {_LONG}$",
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Years of two digits below this one are of this century.
PIVOT = 70
# The numbers of a date; the last one only of columns with times of the day.
PARTS = ("year", "month", "day", "weekday", "days", "hour")


@dataclasses.dataclass(frozen=True)
class DateRule:
    """Reads texts as dates.

    Args:
        form: a name of `FORMS`. A time of the day may follow.
        utc: whether times with an offset are converted to UTC; others are as they are.
    """

    form: str
    utc: bool = False

    def parse(self, words: Any) -> _np.ndarray:
        """Return days since 1970 as float64 (n,) for a pyarrow array of strings; NaN for those that are no date."""
        found = compute.extract_regex(words, pattern=FORMS[self.form])
        parts = {field.name: compute.struct_field(found, field.name) for field in found.type}
        year, day = _whole(parts["year"]), _whole(parts["day"]) if "day" in parts else np.ones(len(words))
        year = np.where(year < 100, year + np.where(year < PIVOT, 2000, 1900), year)
        days = _days(year, _month(parts["month"]), day)
        if "hour" not in parts:
            return days
        days = days + _time(parts)
        return days - _offsets(parts["zone"]) / 1440 if self.utc else days

    def has_offsets(self, words: Any) -> bool:
        """Return whether one of the texts is a date with an offset from UTC other than 0."""
        if "(?P<zone>" not in FORMS[self.form]:
            return False
        found = compute.extract_regex(words, pattern=FORMS[self.form])
        return bool(_offsets(compute.struct_field(found, "zone")).any())

    @property
    def described(self) -> str:
        """Return the rule in words."""
        return f"{self.form}, UTC" if self.utc else self.form


def _whole(texts: Any) -> _np.ndarray:
    """Return the number in each text, 0 for none, NaN for null."""
    texts = compute.if_else(compute.equal(texts, ""), "0", texts)
    return compute.cast(texts, arrow.float64()).to_numpy(zero_copy_only=False).astype("float64")


def _month(texts: Any) -> _np.ndarray:
    """Return the number of months that are numbers or names."""
    if texts.null_count == len(texts):
        return np.full(len(texts), np.nan)
    # There are few different ones.
    encoded = texts.dictionary_encode()
    found = [_month_number(text) for text in encoded.dictionary.to_pylist()]
    places = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return np.array([*found, float("nan")])[places]


def _month_number(text: str) -> float:
    short = text[:3].lower()
    if short in MONTHS:
        return 1.0 + MONTHS.index(short)
    return float(text) if text.isdigit() else float("nan")


def _days(year: Any, month: Any, day: Any) -> _np.ndarray:
    """Return days since 1970, NaN for days that do not exist."""
    known = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (year >= 1000)
    months = np.where(known, (year - 1970) * 12 + month - 1, 0).astype("int64").astype("datetime64[M]")
    days = months.astype("datetime64[D]") + np.where(known, day - 1, 0).astype("int64")
    return np.where(known & (days.astype("datetime64[M]") == months), days.astype("int64"), np.nan)


def _time(parts: dict[str, Any]) -> _np.ndarray:
    """Return the time of the day as a fraction of it."""
    hour, minute, second = (_whole(parts[name]) for name in ("hour", "minute", "second"))
    half = np.array([(text or "").lower() for text in parts["half"].to_pylist()])
    hour = np.where((half == "p") & (hour < 12), hour + 12, np.where((half == "a") & (hour == 12), 0, hour))
    known = (hour < 24) & (minute < 60) & (second < 60)
    return np.where(known, (hour * 3600 + minute * 60 + second) / 86400, np.nan)


def _offsets(zones: Any) -> _np.ndarray:
    """Return the minutes that each time is ahead of UTC, float64 (n,), 0 without an offset."""
    encoded = zones.dictionary_encode()
    found = [_offset(text) for text in encoded.dictionary.to_pylist()]
    return np.array([*found, 0.0])[encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)]


def _offset(zone: str) -> float:
    """Return the minutes of "+05:30" or "-0800"; 0 for "Z" and the like."""
    if zone[:1] not in ("+", "-"):
        return 0.0
    return (60.0 * int(zone[1:3]) + int(zone[-2:])) * (-1 if zone[0] == "-" else 1)


# Forms by the value of `data.date_order`, which decides between them.
ORDERS = {"day": "day-month-year", "month": "month-day-year"}


def fit_dates(words: Any, counts: _np.ndarray, order: str = "") -> Fit:
    """Return the rule that reads most cells as dates; see `fit_numbers`.

    Args:
        words: the different texts, a pyarrow array.
        counts: number of cells with each of them.
        order: what comes first where months are numbers and years last, "day" or "month"; "" if it is unknown.
    """
    fits = []
    for form in FORMS:
        if order and form in ORDERS.values() and form != ORDERS[order]:
            continue
        values = DateRule(form).parse(words)
        fits.append(Fit(DateRule(form), values, int(counts[~np.isnan(values)].sum())))
    best = max(fits, key=lambda fit: fit.count)
    rivals = [f for f in fits if f.count == best.count and not np.array_equal(f.values, best.values, equal_nan=True)]
    unsure = best.count > 0 and bool(rivals)
    if unsure and compute.any(compute.match_substring(words, "/")).as_py():
        # Dates with slashes are usually American.
        best = next((fit for fit in rivals if fit.rule.form == "month-day-year"), best)
    if best.count and best.rule.has_offsets(words):
        rule = dataclasses.replace(best.rule, utc=True)
        best = dataclasses.replace(best, rule=rule, values=rule.parse(words))
    return dataclasses.replace(best, unsure=unsure)


def date_parts(days: Any, first: float, *, clock: bool) -> _np.ndarray:
    """Return year, month, day, weekday (Monday is 0), days since the first date and hour, float32 (n, 5 or 6).

    Args:
        days: days since 1970, float64 (n,); NaN where missing.
        first: the first date of the training rows, in days since 1970.
        clock: whether to return the hour.
    """
    known = ~np.isnan(days)
    whole = np.floor(np.where(known, days, 0)).astype("int64")
    dates = whole.astype("datetime64[D]")
    months, years = dates.astype("datetime64[M]"), dates.astype("datetime64[Y]")
    parts = [
        years.astype("int64") + 1970,
        (months - years.astype("datetime64[M]")).astype("int64") + 1,
        (dates - months.astype("datetime64[D]")).astype("int64") + 1,
        (whole + 3) % 7,
        days - first,
        (days - whole) * 24,
    ]
    found = np.stack([np.where(known, part, np.nan) for part in parts[: 5 + clock]], axis=1)
    return found.astype("float32")
