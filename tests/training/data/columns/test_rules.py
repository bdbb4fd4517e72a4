"""Rules that read cells: numbers as people write them, dates, missing cells; and those that must not be read."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from training.data.columns.cells import Cells, joined, number_cells, value_cells
from training.data.columns.dates import DateRule, date_parts, fit_dates
from training.data.columns.fitting import Hints, fit_cells, fit_texts
from training.data.columns.missing import MISSING, is_missing, spellings
from training.data.columns.numbers import NumberRule, fit_numbers

NUMBERS = {
    "decimal comma": (["1,5", "-0,25", "12", "1.234,5"], [1.5, -0.25, 12, 1234.5], NumberRule("plain", ",")),
    "thousands": (["1,234", "12", "1,234,567.5", "-1,000"], [1234, 12, 1234567.5, -1000], NumberRule()),
    "spaces": (["1 234,5", "12 000", "7", "1,25"], [1234.5, 12000, 7, 1.25], NumberRule("plain", ",")),
    "apostrophes": (["1'234.50", "12’000", "7"], [1234.5, 12000, 7], NumberRule()),
    "lakhs": (["1,00,000", "12,34,567", "5.5"], [1e5, 1234567, 5.5], NumberRule()),
    "dollars": (["$1,200.50", "-$5", "$ 7", "($3)"], [1200.5, -5, 7, -3], NumberRule()),
    "euros": (["1.200,50 €", "5,10 €", "-7 €"], [1200.5, 5.1, -7], NumberRule("plain", ",", "€")),
    "codes": (["USD 12.5", "CHF 3", "kr 4"], [12.5, 3, 4], NumberRule()),
    "per cent": (["12%", "3.5 %", "-1%"], [12, 3.5, -1], NumberRule("plain", ".", "%")),
    "units": (["5 kg", "12.5kg", "7 kg"], [5, 12.5, 7], NumberRule("plain", ".", "kg")),
    "plural": (["5 years", "1 year", "7 years"], [5, 1, 7], NumberRule("plain", ".", "year")),
    "scaled": (["1.5k", "3M", "200"], [1500, 3e6, 200], NumberRule("scaled")),
    "clock": (["12:30", "0:05:07"], [45000, 307], NumberRule("clock")),
    "boolean": (["Yes", "no", "YES"], [1, 0, 1], NumberRule("boolean")),
    "minus": (["−5", "3-", "+2"], [-5, -3, 2], NumberRule()),
    "scientific": (["1e5", "2.5E-3"], [1e5, 2.5e-3], NumberRule()),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_as_people_write_them(kind):
    """The rule that reads most cells is found, and gives the right values."""
    texts, values, rule = NUMBERS[kind]
    fit = fit_numbers(pa.array(texts), np.ones(len(texts), "int64"))
    assert fit.rule == rule
    np.testing.assert_allclose(fit.values, values)
    assert not fit.unsure


@pytest.mark.parametrize("text", ["x", "1_000", "0x10", "C85", "12-14", "1,2,3", "Room 5", "5+", "1.2.3"])
def test_texts_are_no_numbers(text):
    """Codes, ranges and lists are no numbers, with either decimal sign."""
    for decimal in (".", ","):
        assert np.isnan(NumberRule("plain", decimal).parse(pa.array([text]))).all()


def test_a_number_without_per_cent_is_another_number():
    """12% and 0.12 in one column are not both per cent."""
    assert np.isnan(NumberRule("plain", ".", "%").parse(pa.array(["0.12"]))).all()


def test_three_digits_behind_a_comma_are_unsure():
    """1,234 is a thousand or a decimal; other columns, the delimiter or the option decide."""
    cells = value_cells(["1,234", "5,678", "900"])
    assert fit_texts(cells).unsure
    assert fit_texts(cells).values.tolist() == [1234, 5678, 900]
    assert fit_texts(cells, ",").values.tolist() == [1.234, 5.678, 900]
    other = value_cells(["0,5", "1,25", "3,75"])
    for columns, wanted in (({"a": cells}, 1234), ({"a": cells, "b": other}, 1.234)):
        fitted = fit_cells(columns, Hints(chosen=True))
        assert fitted.schema.columns[0].parse(cells)[0] == wanted
        assert any("'1,234' is read as 1234" in note for note in fitted.notes) == (len(columns) == 1)


DATES = {
    "year-month-day": ["2024-01-31", "2024/2/1", "2023-12-05T10:30:00Z", "2023-12-05 10:30"],
    "day-month-year": ["31.01.2024", "1/2/24", "05-12-2023 10:30"],
    "month-day-year": ["01/31/2024", "2/1/24", "12/05/2023 10:30 AM"],
    "day month year": ["31 Jan 2024", "1-Feb-24", "Tue, 5 December 2023 10:30:00"],
    "month day, year": ["Jan 31, 2024", "February 1st, 2024", "Dec 5 2023 10:30"],
    "yearmonthday": ["20240131", "20240201", "20231205"],
}


@pytest.mark.parametrize("form", DATES)
def test_dates_as_people_write_them(form):
    """The form is found; days and times are those of Python."""
    texts = DATES[form]
    fit = fit_dates(pa.array(texts), np.ones(len(texts), "int64"))
    assert (fit.rule, fit.unsure) == (DateRule(form), False)
    days = [datetime.date(2024, 1, 31), datetime.date(2024, 2, 1), datetime.date(2023, 12, 5)]
    times = [10.5 / 24 if ":" in text else 0 for text in texts]
    wanted = [(day - datetime.date(1970, 1, 1)).days for day in days] + [19696] * (len(texts) - 3)
    np.testing.assert_allclose(fit.values, np.add(wanted, times), rtol=1e-12)


@pytest.mark.parametrize("text", ["2023-02-29", "2024-13-01", "31.04.2024", "99", "2024-01-31x", "hello"])
def test_days_that_do_not_exist_are_no_dates(text):
    """A leap day of another year, a 13th month and a 31st of April are not moved."""
    for form in DATES:
        assert np.isnan(DateRule(form).parse(pa.array([text]))).all()


def test_month_or_day_first_is_said():
    """Without a day above 12 the order is a guess."""
    assert fit_dates(pa.array(["01/02/2024", "03/04/2024"]), np.ones(2)).unsure
    assert not fit_dates(pa.array(["01/02/2024", "13/04/2024"]), np.ones(2)).unsure


@pytest.mark.parametrize(("order", "form"), [("day", "day-month-year"), ("month", "month-day-year")])
def test_an_option_decides_between_day_and_month(order, form):
    """03/04/2021 is the 3rd of April or the 4th of March, and no guess; a month 13 is no date."""
    cells = value_cells(["03/04/2021", "05/06/2021"] * 6 + ["31/01/2021"] * (order == "day"))
    fitted = fit_cells({"d": cells}, Hints(chosen=True, order=order))
    (column,) = fitted.schema.columns
    wanted = datetime.date(2021, 4, 3) if order == "day" else datetime.date(2021, 3, 4)
    assert (column.form, fitted.notes) == (form, ())
    assert column.parse(cells)[0] == (wanted - datetime.date(1970, 1, 1)).days
    unknown = fit_cells({"d": value_cells(["03/04/2021", "05/06/2021"] * 6)}, Hints(chosen=True)).notes
    assert unknown == (
        "dates of 'd' are read as month-day-year, such as '03/04/2021'; data.date_order=day or month sets the order",
    )
    assert np.isnan(DateRule("month-day-year").parse(pa.array(["31/01/2021"]))).all()


def test_times_with_an_offset_are_those_of_python():
    """They become UTC, which is said; without any offset nothing is converted."""
    texts = [
        "2024-01-31T23:30:00-05:00",
        "2024-01-31 05:15+0530",
        "2024-01-31T10:00Z",
        "2024-01-31 10:00",
        "2024-01-31",
    ]
    stamps = [
        datetime.datetime.fromisoformat(text)
        for text in ("2024-02-01T04:30", "2024-01-30T23:45", "2024-01-31T10:00", "2024-01-31T10:00", "2024-01-31")
    ]
    fitted = fit_cells({"t": value_cells(texts)}, Hints(chosen=True))
    (column,) = fitted.schema.columns
    wanted = [(stamp - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1) for stamp in stamps]
    np.testing.assert_allclose(column.parse(value_cells(texts)), wanted, rtol=1e-12)
    assert fitted.notes == ("times of 't' with an offset are converted to UTC",)
    assert column.described[1] == "date (year-month-day, UTC)"
    (plain,) = fit_cells({"t": value_cells(texts[2:])}, Hints(chosen=True)).schema.columns
    assert not plain.utc


def test_parts_of_a_date_are_those_of_python():
    """Year, month, day, weekday, elapsed days and hour, on random days."""
    draw = np.random.default_rng(0)
    stamps = [datetime.datetime(1950, 1, 1) + datetime.timedelta(hours=int(h)) for h in draw.integers(0, 10**6, 50)]
    days = np.array([(stamp - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1) for stamp in stamps])
    found = date_parts(np.append(days, np.nan), -100.0, clock=True)
    wanted = [[s.year, s.month, s.day, s.weekday(), d + 100, s.hour] for s, d in zip(stamps, days, strict=True)]
    np.testing.assert_allclose(found[:-1], wanted, atol=2e-2)
    assert np.isnan(found[-1]).all()


@pytest.mark.parametrize("text", ["", "NA", "n/a", "NULL", "None", "-", "?", "nan", "NaN", "#N/A", "NaT"])
def test_spellings_of_a_missing_cell(text):
    """One list for features and targets, in any case and with white space; the option replaces it."""
    assert is_missing(pa.array([text.strip()])).to_pylist() == [True]
    assert value_cells([f" {text} ", "x"]).codes.tolist()[0] == -1
    assert is_missing(pa.array([text.lower()]), spellings(["gone"])).to_pylist() == [False]
    assert spellings([]) == MISSING


def test_cells_of_blocks_are_those_of_the_whole():
    """Blocks with numbers and blocks with texts join to one column; texts have one code each."""
    found = joined([value_cells(["a", "b", ""]), value_cells(["b", "c"]), number_cells([1.0, np.nan, 2.5])])
    assert found.texts() == ["a", "b", "", "b", "c", "1", "", "2.5"]
    assert found.spelled == {"": 1}
    assert isinstance(found.take([1, 5]), Cells)
    assert found.take([1, 5]).texts() == ["b", "1"]


def test_infinite_numbers_have_a_text():
    """They are no whole numbers."""
    assert number_cells([np.inf, 1.0]).texts() == ["inf", "1"]


def test_large_whole_numbers_are_exact():
    """Dates such as 20240131 do not fit float32 and are not rounded."""
    assert number_cells([20240131.0, 20240201.0]).texts() == ["20240131", "20240201"]
    assert number_cells([0.1, 2.0]).numbers.dtype == np.float32
