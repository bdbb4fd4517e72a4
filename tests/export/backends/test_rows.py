"""Rows as strings inside a graph: the vectors are those of the column schema in Python, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.columns.cells import value_cells
from training.data.columns.fitting import Hints, fit_cells
from zoo.common.errors import DataError

# Training cells of a column of each kind.
MANY = [f"c{number % 300}" for number in range(900)]
COLUMNS = {
    "plain": ["1", "2.5", "-3e2", "", "+4", "1,234.5", "(7)", "8-"],
    "comma": ["1,5", "1.234,5", "-0,25", ",5", "7,", "12", "3,25", "4"],
    "euros": ["1.200,50 €", "5,10 €", "-7 €", "", "€ 9,5", "1,5", "2,5 €", "3,5 €"],
    "percent": ["12%", "3.5 %", "-1%", "?", "2%", "3%", "4%", "5%"],
    "years": ["5 years", "1 year", "7 years", "12", "9 years", "", "2 years", "3 years"],
    "scaled": ["1.5k", "3M", "200", "2 bn", "7K", "1k", "2M", ""],
    "clock": ["12:30", "0:05:07", "23:59:59.5", "1:00", "2:00", "", "3:00", "4:00"],
    "boolean": ["Yes", "no", "YES", "", "no", "yes", "n", "y"],
    "spaces": ["1 234,5", "12\u00a0000", "7,5", "1,25", "2'000,5", "3,5", "4,5", "5,5"],
    "category": ["red", "Blue", "red", "", "Grün", "red", "blue", "Grün"],
    "iso": ["2024-01-31", "2023-12-05T10:30:00Z", "2024-02-29 23:59", "", "1969-12-31", "2024-3-1", "2000-02-29"],
    "offsets": ["2024-01-01T23:30:00-05:00", "2024-01-01 05:15+0530", "2024-01-01T10:00Z", "2024-01-01", ""],
    "german": ["31.01.2024", "1.2.24", "05.12.1999 10:30", "", "29.02.2024", "13.3.69", "14.4.70", "15.5.2020"],
    "american": ["01/31/2024", "2/1/24", "12/05/2023 10:30 AM", "12/25/2023 12:00 am", "", "12/31/1999 1:05 pm"],
    "named": ["31 Jan 2024", "1-Feb-24", "Tue, 5 December 2023 10:30:00", "", "9 SEP 1999", "1 mar 2020"],
    "short": ["Jan 2024", "February 2023", "Dec 1999", "", "May 2020", "Jun 2020", "Jul 2020", "Aug 2020"],
    "digits": ["20240131", "19991231", "20000229", "", "20200101", "20200102", "20200103", "20200104"],
}
# Cells that no training row has: missing by another spelling, white space, unknown, and other forms of numbers.
WILD = ["", "NA", " n/a ", "?", "\u00a0-\u2003", "None", "\t", "(null)"]
OWN = {
    "plain": ["1e3", "−5", ".5", "12.", "1,00,000", " 7 "],
    "category": ["RED", "green", "grün", " Blue\n"],
    "iso": ["2024-02-30", "0999-01-01", "2024-01-31 25:00"],
}


def schema_of(columns):
    """Return the fitted schema of columns, with rare categories as one value."""
    return fit_cells({name: value_cells(cells) for name, cells in columns.items()}, Hints(chosen=True)).schema


def in_graph(schema, rows):
    """Return the vectors of the graph, as a signature computes them."""
    import tensorflow as tf

    from export.backends.tensorflow.rows import encode_rows

    specs = [tf.TensorSpec((None,), tf.string) for _ in schema.names]
    encode = tf.function(lambda *cells: encode_rows(schema, cells), input_signature=specs, autograph=False)
    return encode(*(tf.constant([row[name] for row in rows]) for name in schema.names)).numpy()


@pytest.mark.parametrize("name", COLUMNS)
def test_cells_of_each_kind_are_those_of_python(name):
    """Good, missing and unknown cells; those that Python refuses fail with the text in the message."""
    import tensorflow as tf

    schema = schema_of({name: COLUMNS[name]})
    rows = [{name: cell} for cell in [*COLUMNS[name], *WILD, *OWN.get(name, ())]]
    good = []
    for row in rows:
        try:
            schema.encode_records([row])
        except DataError:
            with pytest.raises(tf.errors.InvalidArgumentError, match=rf"in the column .*{name}"):
                in_graph(schema, [row])
        else:
            good.append(row)
    assert len(good) >= len(COLUMNS[name]) + len(WILD) - 1
    np.testing.assert_array_equal(in_graph(schema, good), schema.encode_records(good))
    if schema.columns[0].rule_reads:
        with pytest.raises(tf.errors.InvalidArgumentError, match="no such cell"):
            in_graph(schema, [{name: "no such cell"}])


def test_many_categories_and_rare_ones():
    """Hashes are the same, and categories that are rare or unknown share a value."""
    schema = schema_of({"many": MANY, "rare": ["a"] * 500 + ["b"] * 399 + ["c"]})
    assert [column.kind for column in schema.columns] == ["hash", "category"]
    rows = [
        {"many": many, "rare": rare} for many, rare in [("c7", "a"), ("new", "c"), ("", "d"), ("ü", ""), ("c9", "b")]
    ]
    np.testing.assert_array_equal(in_graph(schema, rows), schema.encode_records(rows))


def test_random_dates():
    """Leap years and the days around them, over 400 years."""
    import datetime

    draw = np.random.default_rng(0)
    days = [datetime.date(1700, 1, 1) + datetime.timedelta(days=int(day)) for day in draw.integers(0, 146_097, 500)]
    rows = [{"day": day.isoformat()} for day in days]
    schema = schema_of({"day": [row["day"] for row in rows]})
    np.testing.assert_array_equal(in_graph(schema, rows), schema.encode_records(rows))


def test_a_wrong_vector_is_seen():
    """The control: a schema with another mean gives another vector."""
    one, other = schema_of({"a": ["1", "2", ""]}), schema_of({"a": ["1", "4", ""]})
    assert (in_graph(one, [{"a": ""}]) != other.encode_records([{"a": ""}])).any()
