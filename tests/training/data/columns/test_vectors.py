"""Columns fitted on rows: vectors by hand, cells as text, and cells and records that are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from loaded_data import one_line

from training.data.columns.fitting import fit_columns
from training.data.columns.missing import cell_of
from training.data.columns.schema import ColumnSchema
from zoo.common.errors import DataError


def test_columns_by_hand():
    """Numbers, a number with gaps and a category: each value of the vector matches the column schema."""
    rows = [["1", "2.5", "red"], ["3", "", "blue"], ["5", "3.5", "red"]]
    table = fit_columns(["a", "b", "color"], rows)
    assert table.features == ("a", "b", "b is missing", "color=blue", "color=red")
    np.testing.assert_array_equal(
        table.encode([*rows, ["7", "NaN", "green"]]),
        np.array([[1, 2.5, 0, 0, 1], [3, 3, 1, 1, 0], [5, 3.5, 0, 0, 1], [7, 3, 1, 0, 0]], "float32"),
    )
    assert ColumnSchema.from_json(json.loads(json.dumps(table.to_json()))) == table
    records = [{"a": 1, "b": None, "color": "blue", "more": 3}, {"a": 2.5, "b": 0, "color": "red"}]
    wanted = np.array([[1, 3, 1, 1, 0], [2.5, 0, 0, 0, 1]], "float32")
    np.testing.assert_array_equal(table.encode_records(records), wanted)


def test_floats_survive_as_cells():
    """A float survives the conversion to the text of a cell exactly."""
    values = np.random.default_rng(0).normal(size=100) * 10.0 ** np.arange(-50, 50)
    assert [float(cell_of(v)) for v in values] == values.tolist()
    assert [cell_of(v) for v in (True, None, np.float32(0.5), 3, "a")] == ["true", "", "0.5", "3", "a"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["x", "1"], r"numbers in the column 'a', or an empty cell\. Received: 'x' in row 1 of 1"),
        (["inf", "1"], r"'a'.*Received: 'inf'"),
        (["1", "-1e39"], r"'b'.*Received: '-1e39'"),
    ],
)
def test_cells_that_cannot_be_are_refused(row, message):
    """Refuses text in a number column, infinity, and numbers beyond float32."""
    with pytest.raises(DataError, match=message) as error:
        fit_columns(["a", "b"], [["1", "2"], ["2", ""]]).encode([row])
    one_line(error)


def test_record_without_a_column_is_refused():
    """The nearest column name is suggested."""
    with pytest.raises(DataError, match=r"row 1 without 'height'. Did you mean 'heigth'") as error:
        fit_columns(["height"], [["1"]]).encode_records([{"heigth": 3}])
    one_line(error)
