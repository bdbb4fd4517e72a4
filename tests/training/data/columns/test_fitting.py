"""The type of a column by most of its cells, what is left out, and vectors by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.data.columns.cells import value_cells
from training.data.columns.fitting import CATEGORIES, Hints, fit_cells, fit_columns
from training.data.columns.schema import ColumnSchema
from zoo.common.errors import DataError

DRAW = np.random.default_rng(0)


def fitted(**columns):
    """Return the fitted schema of columns."""
    return fit_cells({name: value_cells(cells) for name, cells in columns.items()})


def column(cells, **hints):
    """Return the fitted column of some cells."""
    (found,) = fit_cells({"x": value_cells(cells)}, Hints(chosen=True, **hints)).schema.columns
    return found


def measured(count=200):
    """Return different numbers as texts."""
    return [f"{value:.4f}" for value in DRAW.normal(size=count)]


def test_most_cells_decide_the_type():
    """A few other texts count as missing, are named, and do not refuse the same table later."""
    cells = measured()
    cells[3], cells[4], cells[5] = "?", "x", "-"
    found = fit_cells({"a": value_cells(cells)})
    (number,) = found.schema.columns
    present = [float(cell) for cell in cells if cell not in ("?", "x", "-")]
    assert (number.kind, number.gaps, number.strays) == ("number", 3, ("x",))
    assert number.mean == pytest.approx(np.mean(present), rel=1e-6)
    assert found.notes == ("1 training cells of 'a' are no numbers ('x'): they count as missing",)
    vectors = found.schema.encode([["x"], ["?"], ["1.5"]])
    np.testing.assert_allclose(vectors, [[number.mean, 1], [number.mean, 1], [1.5, 0]], rtol=1e-6)
    with pytest.raises(DataError, match="numbers in the column 'a', or an empty cell"):
        found.schema.encode([["y"]])


def test_numbers_of_a_record_are_numbers_whatever_texts_are():
    """131.125 as a number is no thousand in a column of decimal commas, and the text "131,125" is the same number."""
    schema = fit_columns(["a", "c"], [["1,5", "5"], ["2,25", "x"], ["0,75", "5"]])
    found = schema.encode_records([{"a": 131.125, "c": 5}, {"a": "131,125", "c": "5"}, {"a": np.int64(3), "c": None}])
    assert found[:, 0].tolist() == [131.125, 131.125, 3]
    assert (found[0] == found[1]).all()


def test_half_of_the_cells_do_not():
    """Categories with some numbers stay categories; so do postal codes."""
    assert column(["a", "1", "b", "2"] * 30).kind == "category"
    assert column(["01234", "10115", "01234", "80331"] * 5).categories == ("01234", "10115", "80331")
    assert column(["Yes", "No", "No internet service"] * 20).kind == "category"


def test_many_numbers_and_one_other_text_are_numbers():
    """'unlimited' in a third of the rows is a missing number with a mark."""
    found = column([cell if i % 3 else "unlimited" for i, cell in enumerate(measured())])
    assert (found.kind, found.missing, found.strays) == ("number", True, ("unlimited",))


def test_missing_cells_are_imputed_where_training_has_none():
    """The mean replaces them; nothing is refused."""
    schema = fit_columns(["a"], [["1"], ["2"], ["6"]])
    np.testing.assert_array_equal(schema.encode([["NA"], [""], [None]]), [[3], [3], [3]])


def test_dates_become_their_parts():
    """Year, month, day, weekday and elapsed days; the means replace a missing date."""
    cells = ["2024-01-01", "2024-01-31", "", "2024-02-01"]
    schema = fit_columns(["day"], [[cell] for cell in cells])
    assert schema.features == (*(f"day: {p}" for p in ("year", "month", "day", "weekday", "days")), "day is missing")
    wanted = [
        [2024, 1, 1, 0, 0, 0],
        [2024, 1, 31, 2, 30, 0],
        [2024, 4 / 3, 11, 5 / 3, 61 / 3, 1],
        [2024, 2, 1, 3, 31, 0],
    ]
    np.testing.assert_allclose(schema.encode([[cell] for cell in cells]), wanted, rtol=1e-6)
    assert column([20240101 + i for i in range(28)]).kind == "date"


def test_rare_and_unknown_categories_share_a_value():
    """A category that is seen once has no value of its own in a table of some size; unknown ones go there too."""
    cells = ["red"] * 60 + ["blue"] * 50 + ["green"]
    schema = fit_columns(["c"], [[cell] for cell in cells])
    assert schema.features == ("c=blue", "c=red", "c=(other)")
    found = schema.encode([["red"], ["green"], ["pink"], [""]])
    np.testing.assert_array_equal(found, [[0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])


def test_many_categories_are_hashed():
    """Beyond the stated number, texts share buckets, which TensorFlow's hash decides; a missing one has its own."""
    import tensorflow as tf

    cells = [f"c{i % 300}" for i in range(900)] + [""]
    schema = fit_columns(["c"], [[cell] for cell in cells])
    (found,) = schema.columns
    assert (found.kind, found.width) == ("hash", found.buckets + 1)
    vector = schema.encode([["c7"], ["never seen"], ["NA"]])
    assert vector.sum(1).tolist() == [1, 1, 1]
    wanted = tf.strings.to_hash_bucket_fast(["c7", "never seen"], found.buckets).numpy().tolist()
    assert vector.argmax(1).tolist() == [*wanted, found.buckets]
    assert column([f"c{i % CATEGORIES}" for i in range(900)]).kind == "category"


def test_columns_that_say_nothing_are_left_out_and_named():
    """Ids, names, an index, empty and constant columns; naming the columns keeps them."""
    count = 60
    columns = {
        "id": range(count),
        "name": [f"person {i}" for i in range(count)],
        "empty": [""] * count,
        "one": ["x"] * count,
        "age": DRAW.integers(20, 60, count),
        "year": range(count),
    }
    found = fitted(**columns)
    assert found.schema.names == ("age", "year")
    assert {name for names in found.left_out.values() for name in names} == {"id", "name", "empty", "one"}
    assert all(repr(name) in found.notes[0] for name in ("id", "name", "empty", "one"))
    kept = fit_cells({name: value_cells(cells) for name, cells in columns.items()}, Hints(chosen=True))
    assert kept.schema.names == tuple(columns)
    with pytest.raises(DataError, match=r"columns to learn from. Received: 'empty' \(empty\)"):
        fitted(empty=[""] * 5)


def test_the_schema_survives_json_and_reads_that_of_older_runs():
    """Every kind of column round-trips; a column as older runs saved it encodes as it did."""
    cells = {
        "n": measured(40),
        "d": ["2024-01-31", "2023-05-06"] * 20,
        "c": ["a", "b", "", "c"] * 10,
        "b": ["yes", "no"] * 20,
    }
    schema = fitted(**cells).schema
    assert ColumnSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    old = {"name": "a", "kind": "number", "mean": 2.0, "missing": True, "categories": []}
    assert ColumnSchema.from_json({"columns": [old]}).encode([[""], ["3"]]).tolist() == [[2, 1], [3, 0]]


def test_batches_in_tensorflow_are_the_vectors_of_numpy():
    """The input pipeline expands compact rows as `ColumnSchema.expand` does."""
    from training.data.dataset import Dataset
    from training.data.pipeline.encoding import TableEncoder
    from zoo import PreprocessingConfig

    cells = {"n": ["1", "", "3"] * 10, "d": ["2024-01-31", "2023-05-06", ""] * 10, "c": ["a", "b", ""] * 10}
    plain = {"a": measured(30), "b": measured(30)}
    for columns in (cells, plain):
        schema = fitted(**columns).schema
        compact = schema.compact(map(value_cells, columns.values()), 30)
        encoder = TableEncoder(Dataset("t", (), (), {}, table=schema), (schema.width,), PreprocessingConfig())
        np.testing.assert_array_equal(encoder.raw(compact), schema.expand(compact))
