"""Tables: columns fitted on the training rows, vectors by hand, NumPy's statistics, refused options, complete runs."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import export
import training
import zoo
from export.core.format import formats
from export.core.manifest import SAMPLES
from export.core.samples import read_samples
from export.verification.parity import compare, require
from training import DataConfig, LogConfig, ModelConfig, OptimizerConfig, Recipe, Run
from training.data.columns.fitting import fit_columns
from training.data.columns.missing import cell_of
from training.data.columns.schema import ColumnSchema
from training.data.pipeline.opening import open_pipeline, training_statistics
from training.data.pipeline.statistics import moments, streamed
from training.data.readers.loading import load_dataset
from training.learning.build import build_model
from training.learning.evaluation import open_data
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, DataError, ParityError, RunError

BUNDLED = {"iris": (4, 3, 150), "wine": (13, 3, 178), "breast_cancer": (30, 2, 569), "diabetes": (10, 1, 442)}


def one_line(error):
    """Return the message, and check that it has one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def served(name, **options):
    """Return the pipeline of a table."""
    return open_pipeline(Recipe("t", ModelConfig("mlp_tiny"), DataConfig(name, **options)), zoo.spec("mlp_tiny"))


def written(path, names, rows):
    """Write a CSV file and return its path."""
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def people(tmp_path):
    """A table of 60 rows: a number with gaps, a category, and a target that depends on both."""
    draw = np.random.default_rng(0)
    rows = []
    for i in range(60):
        age, town = draw.normal(40, 10), "abc"[draw.integers(3)]
        label = "yes" if age + 10 * (town == "a") > 42 else "no"
        rows.append(("" if i % 9 == 0 else f"{age:.3f}", town, label))
    return written(tmp_path / "people.csv", ("age", "town", "outcome"), rows)


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


def columns_of(pipeline):
    """Return the training rows as float64."""
    return pipeline.raw("train", 10_000)[0].astype("float64")


def test_statistics_are_those_of_numpy_on_iris():
    """Each normalization is NumPy's formula on the training rows in float64."""
    raw = columns_of(served("iris"))
    for method, mean, std in (
        ("channel", raw.mean(0), raw.std(0)),
        ("", raw.mean(0), raw.std(0)),
        ("zscore", [raw.mean()], [raw.std()]),
        ("minmax", raw.min(0), raw.max(0) - raw.min(0)),
    ):
        preprocessing = served("iris", normalize=method).preprocessing
        np.testing.assert_allclose(preprocessing.mean, np.broadcast_to(mean, 4), rtol=1e-12)
        np.testing.assert_allclose(preprocessing.std, np.broadcast_to(std, 4), rtol=1e-12)
    x = np.concatenate([np.asarray(x) for x, _ in served("iris", normalize="minmax").train(0)])
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6


def test_robust_statistics_are_quartiles(tmp_path):
    """Median and distance of the quartiles of each number, or half its range; missing cells are filled before."""
    draw = np.random.default_rng(0)
    rows = [(i if i % 7 else "", "3.5" if i % 30 else "5.5", "ab"[draw.integers(2)], "xy"[i % 2]) for i in range(120)]
    path = written(tmp_path / "t.csv", ("a", "b", "c", "y"), rows)
    pipeline = served("table", path=path, normalize="robust")
    raw, found = columns_of(pipeline), pipeline.preprocessing
    low, middle, high = np.quantile(raw, (0.25, 0.5, 0.75), axis=0)
    np.testing.assert_allclose(found.mean, [middle[0], 0, 3.5, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.std, [(high - low)[0], 1, 1, 1, 1], rtol=1e-6)
    assert pipeline.dataset.table.parts == (1, -1, 1, -2)
    with pytest.raises(BadOption, match=r"data\.normalize=robust applies to tables. Received: digits") as error:
        served("digits", normalize="robust")
    one_line(error)


def test_columns_are_those_of_the_table(people):
    """A model for tables is built for the columns of this one; nobody can say otherwise."""
    recipe = training.get_recipe("table_realmlp").override(**{"data.path": people})
    pipeline = open_pipeline(recipe, zoo.spec("realmlp"))
    assert pipeline.dataset.table.parts == (1, -1, -3)
    assert build_model(recipe, pipeline).get_layer("columns").columns == (1, -1, -3)
    other = recipe.override(**{"model.options.columns": [5]})
    with pytest.raises(BadOption, match=r"model.options.columns follows from the data.*Set data.columns") as error:
        build_model(other, pipeline)
    one_line(error)


@pytest.mark.parametrize(
    "method", ["channel", *(pytest.param(name, marks=pytest.mark.slow) for name in ("minmax", "zscore"))]
)
def test_statistics_are_those_of_numpy_on_digits(method):
    """For images, statistics are over all values or each channel; they replace the data's preprocessing."""
    from training.datasets.digits import TRAIN, load_pixels

    pixels = load_pixels()[0][TRAIN.start : TRAIN.stop].astype("float64")
    preprocessing = served("digits", normalize=method).preprocessing
    wanted = (pixels.min(), np.ptp(pixels)) if method == "minmax" else (pixels.mean(), pixels.std())
    assert (preprocessing.mean[0], preprocessing.std[0]) == pytest.approx(wanted, rel=1e-14)
    assert served("digits").preprocessing == load_dataset(DataConfig("digits")).preprocessing


def test_statistics_of_a_stream_are_those_of_the_whole():
    """Batches lose no precision, also for large values with small differences."""
    values = np.random.default_rng(0).normal(1e6, 1e-2, (1000, 5, 3))
    whole, parts = moments(values), streamed(np.array_split(values, 13))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(parts.std, values.std((0, 1)), rtol=1e-7)
    np.testing.assert_allclose(parts.over_all().std, [values.std()], rtol=1e-7)
    assert (parts.low == whole.low).all()
    assert (parts.high == whole.high).all()


def test_indicator_columns_are_not_scaled(people):
    """Numbers of a table are scaled; gaps and categories stay 0 and 1. A constant column is divided by 1."""
    pipeline = served("table", path=people)
    assert pipeline.dataset.table.is_number() == [True, False, False, False, False]
    assert pipeline.preprocessing.mean[1:] == (0.0,) * 4
    assert pipeline.preprocessing.std[1:] == (1.0,) * 4
    x = np.concatenate([np.asarray(x) for x, _ in pipeline.evaluate("train")])
    assert abs(x[:, 0].mean()) < 1e-6
    assert set(np.unique(x[:, 1:])) == {0.0, 1.0}


def test_constant_columns_are_harmless(tmp_path):
    """They cause no division by zero where they are named; otherwise they are left out."""
    path = written(tmp_path / "t.csv", ("a", "b", "y"), [(3, i, "xy"[i % 2]) for i in range(30)])
    assert served("table", path=path).dataset.table.names == ("b",)
    preprocessing = served("table", path=path, columns=("a", "b")).preprocessing
    assert (preprocessing.mean[0], preprocessing.std[0]) == (3.0, 1.0)


def changed(dataset, split):
    """Return a dataset with entirely different cells in a split."""
    rows = np.fromiter((x for x, _ in dataset.splits[split].examples.as_numpy_iterator()), "int64")

    def corrupt(cells):
        numbers = cells.numbers.copy()
        numbers[rows] = 9999
        return dataclasses.replace(cells, numbers=numbers)

    columns = {name: corrupt(cells) for name, cells in dataset.cells.columns.items()}
    return dataclasses.replace(dataset, cells=dataclasses.replace(dataset.cells, columns=columns))


@pytest.mark.parametrize("method", ["minmax", "zscore", "channel", "robust"])
@pytest.mark.parametrize("name", ["iris", pytest.param("diabetes", marks=pytest.mark.slow)])
def test_nothing_leaks_from_validation_or_test(name, method, monkeypatch):
    """Validation and test examples do not change columns, statistics or scale; training examples do."""
    import training.data.pipeline.opening as opening

    data = load_dataset(DataConfig(name, normalize=method))
    found = {}
    for split in ("", "validation", "test", "train"):
        given = changed(data, split) if split else data
        monkeypatch.setattr(opening, "open_dataset", lambda *_, given=given: given)
        found[split] = training_statistics(served(name, normalize=method))
    assert found[""] == found["validation"] == found["test"]
    assert found["train"]["preprocessing"] != found[""]["preprocessing"]


def test_test_rows_add_no_columns(people, tmp_path):
    """A category or gap that occurs only in test rows is not in the column schema."""
    names, *rows = [line.split(",") for line in Path(people).read_text(encoding="utf-8").split()]
    test = {x for x, _ in load_dataset(DataConfig("table", path=people)).splits["test"].examples.as_numpy_iterator()}
    changed_rows = [[row[0], "elsewhere", row[2]] if row[0] and i in test else row for i, row in enumerate(rows)]
    assert changed_rows != rows
    other = written(tmp_path / "other.csv", names, changed_rows)
    one, two = served("table", path=people), served("table", path=other)
    found = [training_statistics(pipeline) for pipeline in (one, two)]
    # The files are others, by their digests.
    assert found[0].pop("files") != found[1].pop("files")
    assert found[0] == found[1]
    found = two.raw("test", 100)[0]
    # Rows without an age are not changed.
    assert not found[found[:, 1] == 0][:, 2:].any()


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


def recipe(name, path="", **changes):
    """Return a recipe for a table that trains in seconds."""
    values = {"optimizer": OptimizerConfig("adamw", 1e-2), "epochs": 5, "precision": "float32", "strategy": "one"}
    values["log"] = LogConfig(every=0, misclassified=0)
    return Recipe("t", ModelConfig("mlp_tiny"), DataConfig(name, path=path, batch_size=16), **{**values, **changes})


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """A finished run on diabetes."""
    return training.train(recipe("diabetes", epochs=15), run=tmp_path_factory.mktemp("tables") / "run")


def test_regression_predicts_in_the_units_of_the_data(regression):
    """Metrics match NumPy's for the saved model in plain Keras; the best epoch has the lowest loss."""
    import keras

    result, pipeline = regression.result(), open_data(regression)
    model = keras.saving.load_model(regression.model_path, compile=False)
    raw, truth = pipeline.raw("test", 1000)
    mean, std = np.float32(pipeline.preprocessing.mean), np.float32(pipeline.preprocessing.std)
    values = model.predict((raw - mean) / std, verbose=0)
    error = values - truth
    assert values.mean() > 50
    assert result["test"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert result["test"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    r2 = 1 - (error**2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert result["test"]["r2"] == pytest.approx(r2, rel=1e-3)
    assert r2 > 0.05
    losses = [row["val_loss"] for row in regression.metrics()]
    assert result["best"] == {"val_loss": pytest.approx(min(losses)), "epoch": int(np.argmin(losses)) + 1}
    again = training.evaluate(regression)
    assert again.rmse == pytest.approx(result["test"]["rmse"])


def test_run_saves_fitted_statistics(regression, tmp_path):
    """The run saves preprocessing, scale and columns; opening it uses them, whatever the data is now."""
    saved = json.loads((regression.path / "data.json").read_text())
    assert set(saved) == {"preprocessing", "scale", "summary", "tabular"}
    saved["scale"]["mean"] = [7.0]
    saved["preprocessing"]["mean"] = [1.0] * 10
    run = Run.create(regression.recipe, tmp_path / "other", None, saved)
    pipeline = open_data(run)
    assert pipeline.dataset.scale.mean == (7.0,)
    assert pipeline.preprocessing.mean == (1.0,) * 10


@pytest.mark.parametrize("saved", [{"scale": 3}, {"tabular": {}}, {"preprocessing": {"mean": 1}}, {"other": 1}, [1]])
def test_damaged_statistics_of_a_run_are_refused(regression, tmp_path, saved):
    """Unreadable statistics give one line, not a traceback."""
    run = Run.create(regression.recipe, tmp_path / "run")
    (run.path / "data.json").write_text(json.dumps(saved))
    with pytest.raises(
        RunError, match=r"training statistics that a run saves|data\.json: (scale|the content) must be"
    ) as error:
        open_data(run)
    one_line(error)


def test_commands_print_regression_metrics(regression, zoo_command):
    """`zoo evaluate` prints errors in the data's units, and no accuracy."""
    code, out, err = zoo_command("evaluate", regression.path)
    assert (code, err) == (0, "")
    assert f"RMSE {regression.result()['test']['rmse']:.4f}" in out
    assert "accuracy" not in out


def test_table_with_gaps_and_categories_trains(people, tmp_path):
    """A run on a CSV file is better than the majority class, and its columns encode rows."""
    run = training.train(recipe("table", people, epochs=20), run=tmp_path / "run")
    assert training.evaluate(run, "train").accuracy > 0.8
    table = ColumnSchema.from_json(run.statistics()["tabular"])
    assert table.names == ("age", "town")
    x, _ = open_data(run).raw("train", 3)
    assert table.encode_records([{"age": float(x[0, 0]), "town": "b"}]).shape == (1, table.width)


FORMATS = ["tflite", "tflite_int8", "tflite_dynamic", "onnx", "onnx_int8", "saved_model"]


@pytest.fixture(scope="module")
def values(regression):
    """The run on diabetes exported, by format."""
    return {a.format: a for a in export.convert(regression, FORMATS)}


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
def test_artifacts_give_values_in_the_units_of_the_data(values, regression, fmt):
    """Each has the metric R2 and no top-1, and predicts the progression; it verifies from its files alone."""
    artifact = export.verify(values[fmt].path)
    parity, metadata = artifact.parity, artifact.manifest["metadata"]
    assert (parity["metric"], parity["agreement"], parity["passed"]) == ("r2", None, True)
    assert parity["source_mae"] == pytest.approx(regression.result()["test"]["mae"], rel=1e-3)
    assert (metadata["task"], metadata["output"], metadata["labels"]) == ("regress", "values", ["progression"])
    assert [tensor["name"] for tensor in artifact.manifest["outputs"]] == ["values"]
    raw, truth = open_data(regression).raw("test", 1000)
    found = export.load(artifact.path)(raw)
    assert found.shape == truth.shape
    assert np.abs(found - truth).mean() == pytest.approx(parity["mae"], rel=1e-3)


@pytest.mark.slow
def test_values_outside_the_tolerance_are_refused(values):
    """The control: values off by 2% of their range exceed the tolerance of a float artifact."""
    artifact = values["onnx"]
    runtime, samples = export.load(artifact.path), read_samples(artifact.folder / SAMPLES)
    samples["logits"] = samples["logits"] + 0.02 * np.ptp(samples["logits"])
    parity = compare(runtime, samples, formats["onnx"].tolerance, artifact.manifest["metadata"])
    assert not parity.passed
    with pytest.raises(ParityError, match=r"max error 0\.02 of the value range.*r2 ") as error:
        require(parity, "it")
    one_line(error)


@pytest.mark.slow
def test_report_of_a_regression_shows_its_metrics(values, regression, zoo_command):
    """The page and the tables show R2 and errors in the data's units, not accuracy or confusion."""
    content = export.report(regression, measure=False).to_json()
    assert content["summary"]["metric"] == "r2"
    assert content["summary"]["test_metrics"]["RMSE"] == regression.result()["test"]["rmse"]
    page = (regression.path / "report.html").read_text(encoding="utf-8")
    assert "Test R²" in page
    assert "R² is the fraction" in page
    assert "Test accuracy" not in page
    code, out, err = zoo_command("verify", values["tflite"].path)
    assert (code, err) == (0, "")
    assert "R² " in out


@pytest.fixture(scope="module")
def wines(tmp_path_factory):
    """A run on the wines, with columns that differ a thousandfold in range, and its artifacts by format."""
    run = training.train(recipe("wine", epochs=10), run=tmp_path_factory.mktemp("wines") / "run")
    return run, {a.format: a for a in export.convert(run, FORMATS)}


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
def test_columns_of_any_range_survive_int8(wines, fmt):
    """Int8 retains the information of small columns next to large ones: all formats predict the source's classes."""
    run, artifacts = wines
    parity = export.verify(artifacts[fmt].path).parity
    assert parity["passed"]
    assert parity["accuracy"] == parity["source_accuracy"] == run.result()["test"]["accuracy"]
    spans = np.ptp(open_data(run).raw("train", 1000)[0], axis=0)
    assert spans.max() > 1000 * spans.min()


@pytest.mark.slow
def test_artifacts_take_rows(wines, tmp_path):
    """Mappings and files become the vectors of an artifact; rows that do not fit are reported in one line."""
    run, artifacts = wines
    path = artifacts["onnx"].path
    table = ColumnSchema.from_json(run.statistics()["tabular"])
    raw, _ = open_data(run).raw("test", 5)
    records = [dict(zip(table.names, map(float, row), strict=True), more="x") for row in raw]
    np.testing.assert_array_equal(export.encode_rows(path, records), raw)
    names = [*reversed(table.names), "more"]
    rows = [[cell_of(record[name]) for name in names] for record in records]
    np.testing.assert_array_equal(export.encode_rows(path, written(tmp_path / "rows.csv", names, rows)), raw)
    assert export.load(path)(export.encode_rows(path, records)).shape == (5, 3)
    with pytest.raises(DataError, match="row 1 without 'alcohol'") as error:
        export.encode_rows(path, [{"proline": 3}])
    one_line(error)
    with pytest.raises(DataError, match="numbers in the column 'alcohol', or an empty cell") as error:
        export.encode_rows(path, [records[0] | {"alcohol": "strong"}])
    one_line(error)
    column = table.names.index("alcohol")
    assert export.encode_rows(path, [records[0] | {"alcohol": None}])[0, column] == np.float32(
        table.columns[column].mean
    )
    with pytest.raises(DataError, match=r"rows='alcohol'"):
        export.encode_rows(path, written(tmp_path / "few.csv", ("proline", "ash"), [(1, 2)]))


@pytest.mark.slow
def test_vectors_need_an_artifact_of_a_table(digits_run, tmp_path):
    """An artifact for images has no columns."""
    (artifact,) = export.convert(shutil.copytree(digits_run.path, tmp_path / "run"), "onnx")
    with pytest.raises(RunError, match="a tabular model"):
        export.encode_rows(artifact.path, [{"a": 1}])


@pytest.mark.slow
def test_a_saved_model_takes_texts(people, tmp_path):
    """The cells of the file go in as they are: the outputs are those of the vectors; so does the verification."""
    names = ("town", "age")
    changes = {"data.path": people, "data.columns": names, "epochs": 2, "model.options.widths": [16]}
    run = training.train("table_mlp", changes, run=tmp_path / "run")
    (artifact,) = export.convert(run, "saved_model")
    runtime, samples = export.load(artifact.path), read_samples(artifact.folder / SAMPLES)
    assert samples["rows"].shape == (6, 2)
    rows = [dict(zip(names, map(str, row), strict=True)) for row in samples["rows"]]
    np.testing.assert_allclose(runtime.classify_rows(rows), samples["logits"], rtol=1e-5, atol=1e-6)
    wild = [{"age": " NA", "town": "elsewhere", "more": "x"}, {"age": "1,234.5", "town": " a "}]
    found = runtime.classify_rows(wild)
    np.testing.assert_allclose(found, runtime(export.encode_rows(artifact.path, wild)), rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match=r"Expected numbers in the column 'age'.*old") as error:
        runtime.classify_rows([{"age": "old", "town": "a"}])
    one_line(error)
    with pytest.raises(DataError, match="row 1 without 'town'") as error:
        runtime.classify_rows([{"age": "3"}])
    one_line(error)
    samples["rows"] = samples["rows"][::-1]
    assert not compare(runtime, samples, formats["saved_model"].tolerance, artifact.manifest["metadata"]).passed
