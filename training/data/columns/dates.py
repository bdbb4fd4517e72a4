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
    r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?)?$"
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
        form: a name of `FORMS`. A time of the day may follow; its zone is ignored.
    """

    form: str

    def parse(self, words: Any) -> _np.ndarray:
        """Return days since 1970 as float64 (n,) for a pyarrow array of strings; NaN for those that are no date."""
        found = compute.extract_regex(words, pattern=FORMS[self.form])
        parts = {field.name: compute.struct_field(found, field.name) for field in found.type}
        year, day = _whole(parts["year"]), _whole(parts["day"]) if "day" in parts else np.ones(len(words))
        year = np.where(year < 100, year + np.where(year < PIVOT, 2000, 1900), year)
        days = _days(year, _month(parts["month"]), day)
        return days + _time(parts) if "hour" in parts else days

    @property
    def described(self) -> str:
        """Return the rule in words."""
        return self.form


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


def fit_dates(words: Any, counts: _np.ndarray) -> Fit:
    """Return the rule that reads most cells as dates; see `fit_numbers`."""
    fits = []
    for form in FORMS:
        values = DateRule(form).parse(words)
        fits.append(Fit(DateRule(form), values, int(counts[~np.isnan(values)].sum())))
    best = max(fits, key=lambda fit: fit.count)
    rivals = [f for f in fits if f.count == best.count and not np.array_equal(f.values, best.values, equal_nan=True)]
    unsure = best.count > 0 and bool(rivals)
    if unsure and compute.any(compute.match_substring(words, "/")).as_py():
        # Dates with slashes are usually American.
        best = next((fit for fit in rivals if fit.rule.form == "month-day-year"), best)
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
