"""Tables: scikit-learn's, CSV and Parquet, the task of a target, and faults and options that are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from loaded_data import one_line
from small_tables import served, written

import training
from training import DataConfig, Recipe
from training.data.readers.loading import load_dataset
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, DataError

BUNDLED = {"iris": (4, 3, 150), "wine": (13, 3, 178), "breast_cancer": (30, 2, 569), "diabetes": (10, 1, 442)}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_tables_are_those_of_scikit_learn(name):
    """Every value is scikit-learn's, in every split; classes have its names, diabetes its values."""
    import sklearn.datasets

    features, labels, count = BUNDLED[name]
    found, pipeline = getattr(sklearn.datasets, f"load_{name}")(), served(name)
    assert (pipeline.shape, len(pipeline.dataset.labels)) == ((features,), labels)
    rows = [pipeline.raw(split, 1000) for split in pipeline.dataset.splits]
    x, y = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    assert len(x) == count
    if labels == 1:
        truth = y[:, 0]
    else:
        theirs = list(found.target_names)
        truth = np.array([theirs.index(pipeline.dataset.labels[i]) for i in y])
    ours = sorted(map(tuple, np.column_stack([x, truth]).astype("float32").tolist()))
    assert ours == sorted(map(tuple, np.column_stack([found.data, found.target]).astype("float32").tolist()))


BAD = {
    "empty": (b"", "Empty|rows|read"),
    "header only": (b"a,b\n", "rows below the header"),
    "ragged": (b"a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
    "bytes of no text": (bytes(range(256)) * 4, "zero bytes"),
    "duplicate column names": (b"a,a\n1,2\n", r"different name for each column.*'a'"),
    "no target": (b"a,b\n1,\n2,\n3,NA\n", "0 different values in 0 rows, and 3 missing ones"),
    "one class": (b"a,b\n1,x\n2,x\n3,x\n", "1 different values in 3 rows"),
    "each its own class": (b"a,b\n1,x\n2,y\n3,z\n", "3 different values in 3 rows"),
    "one column": (b"a\n1\n2\n", "columns other than the target 'a'"),
    "infinite target": (b"a,b\n1,1.5\n2,inf\n3,2.5\n", "3 different values in 3 rows"),
    "one value of the target only": (b"a,b\n1,\n2,nan\n3,2.5\n", "to learn from|at least|validation"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_tables_are_reported_in_one_line(fault, tmp_path):
    """Every fault of a file is one DataError with its place."""
    content, message = BAD[fault]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_dataset(DataConfig("table", path=str(tmp_path / "t.csv")))
    one_line(error)


def test_missing_files_and_columns_are_reported(people, tmp_path):
    """A missing file, table, target or column, and the target among the features, are refused."""
    for path, message in (("", "--set data.path=FILE"), (tmp_path, "ends in .csv"), (tmp_path / "none.csv", "exists")):
        with pytest.raises(DataError, match=re.escape(message)) as error:
            load_dataset(DataConfig("table", path=str(path)))
        one_line(error)
    for options, message in (
        ({"target": "outcmoe"}, r"data\.target='outcmoe'. Did you mean 'outcome'"),
        ({"columns": ("age", "twon")}, r"data\.columns='twon'. Did you mean 'town'"),
        ({"columns": ("age", "outcome")}, "other than the target 'outcome'"),
    ):
        with pytest.raises(DataError, match=message) as error:
            load_dataset(DataConfig("table", path=people, **options))
        one_line(error)


def test_parquet_and_csv_are_the_same_table(people, tmp_path):
    """Typed Parquet and CSV text give the same rows; a target is found by name in any position."""
    import pyarrow.csv
    import pyarrow.parquet

    typed = pyarrow.csv.read_csv(people)
    pyarrow.parquet.write_table(typed.select(["outcome", "town", "age"]), tmp_path / "people.parquet")
    one = served("table", path=people)
    two = served("table", path=str(tmp_path / "people.parquet"), target="outcome", columns=("age", "town"))
    assert one.dataset.table == two.dataset.table
    for split in one.dataset.splits:
        for ours, theirs in zip(one.raw(split, 100), two.raw(split, 100), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert one.dataset.labels == ("no", "yes")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters(people, tmp_path, delimiter):
    """Semicolons and tabs separate columns too."""
    content = Path(people).read_text(encoding="utf-8").replace(",", delimiter)
    (tmp_path / "other.csv").write_text("\ufeff" + content, encoding="utf-8")
    assert served("table", path=str(tmp_path / "other.csv")).dataset.table == served("table", path=people).dataset.table


@pytest.mark.parametrize(
    ("targets", "task", "labels"),
    [
        ([f"{i}.5" for i in range(40)], "regress", ("y",)),
        (list(range(40)), "regress", ("y",)),
        ([i % 3 + 8 for i in range(40)], "classify", ("8", "9", "10")),
        ([("true", "false")[i % 2] for i in range(40)], "classify", ("false", "true")),
        ([f"{i % 2}.0" for i in range(40)], "regress", ("y",)),
    ],
)
def test_task_is_inferred_and_can_be_overridden(targets, task, labels, tmp_path):
    """Texts and a few integers are classes, other numbers are regression targets; `data.task` overrides it."""
    path = written(tmp_path / "t.csv", ("x", "y"), enumerate(targets))
    found = load_dataset(DataConfig("table", path=path))
    assert (found.task, found.labels) == (task, labels)
    if "true" not in targets:
        assert load_dataset(DataConfig("table", path=path, task="regress")).labels == ("y",)
    if len(set(targets)) < 5:
        assert load_dataset(DataConfig("table", path=path, task="classify")).task == "classify"


def test_options_that_cannot_apply_are_refused(people):
    """Refuses given and measured statistics at once, image and text options on a table, and columns of images."""
    for options, message in (
        ({"normalize": "zscore", "preprocessing": PreprocessingConfig(std=(2.0,))}, "Leave one out"),
        ({"length": (3,)}, r"data\.length applies to texts"),
        ({"vocabulary": 30}, r"data\.vocabulary applies to texts"),
        ({"image_size": (8, 8)}, r"data\.image_size applies to images"),
        ({"channels": 3}, r"data\.channels applies to images"),
        ({"augment": training.AugmentConfig(flip=True)}, r"data\.augment applies to images"),
    ):
        with pytest.raises(BadOption, match=message) as error:
            served("table", path=people, **options)
        one_line(error)
    with pytest.raises(BadOption, match=r"data\.normalize must be one of"):
        Recipe("t").override(**{"data.normalize": "median"})
