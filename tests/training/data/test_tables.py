"""Tables: columns learnt on the training rows, vectors by hand, statistics as NumPy's, what is refused, whole runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import export
import training
import zoo
from training import DataConfig, ModelConfig, OptimizerConfig, Recipe, Run
from training.data.columns import ColumnSchema, cell_of, fit_columns, parse_number
from training.data.pipeline.opening import open_pipeline, training_statistics
from training.data.pipeline.statistics import moments, streamed
from training.data.readers.loading import load_dataset
from training.learning.evaluation import open_data
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, DataError, ParityError, RunError

BUNDLED = {"iris": (4, 3, 150), "wine": (13, 3, 178), "breast_cancer": (30, 2, 569), "diabetes": (10, 1, 442)}


def one_line(error):
    """Return the message, which is one line."""
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
    """A table of 60 rows: a number with gaps, a category, and a target that follows from both."""
    draw = np.random.default_rng(0)
    rows = []
    for i in range(60):
        age, town = draw.normal(40, 10), "abc"[draw.integers(3)]
        label = "yes" if age + 10 * (town == "a") > 42 else "no"
        rows.append(("" if i % 9 == 0 else f"{age:.3f}", town, label))
    return written(tmp_path / "people.csv", ("age", "town", "answer"), rows)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_tables_are_those_of_scikit_learn(name):
    """Every value is scikit-learn's, whatever the split; classes have its names, diabetes its values."""
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
    """Numbers, a number with gaps and a category: each value of the vector is what the contract says."""
    rows = [["1", "2.5", "red"], ["3", "", "blue"], ["5", "3.5", "red"]]
    table = fit_columns(["a", "b", "colour"], rows)
    assert table.features == ("a", "b", "b is missing", "colour=blue", "colour=red")
    np.testing.assert_array_equal(
        table.encode([*rows, ["7", "NaN", "green"]]),
        np.array([[1, 2.5, 0, 0, 1], [3, 3, 1, 1, 0], [5, 3.5, 0, 0, 1], [7, 3, 1, 0, 0]], "float32"),
    )
    assert ColumnSchema.from_json(json.loads(json.dumps(table.to_json()))) == table
    records = [{"a": 1, "b": None, "colour": "blue", "more": 3}, {"a": 2.5, "b": 0, "colour": "red"}]
    wanted = np.array([[1, 3, 1, 1, 0], [2.5, 0, 0, 0, 1]], "float32")
    np.testing.assert_array_equal(table.encode_records(records), wanted)


@pytest.mark.parametrize(
    ("cell", "number"), [("1", 1.0), (" -2.5e3 ", -2500.0), ("", None), ("NA", None), ("nan", None), ("N/A", None)]
)
def test_numbers_and_gaps(cell, number):
    """What stands for a missing number is known; NaN is one."""
    found = parse_number(cell)
    assert found == number if number is not None else np.isnan(found)


@pytest.mark.parametrize("cell", ["x", "1_000", "1,5", "None?", "0x10"])
def test_texts_are_no_numbers(cell):
    """What only Python would read as a number is none."""
    assert parse_number(cell) is None


def test_floats_survive_as_cells():
    """A float as the text of a cell is the same float again."""
    values = np.random.default_rng(0).normal(size=100) * 10.0 ** np.arange(-50, 50)
    assert [float(cell_of(v)) for v in values] == values.tolist()
    assert [cell_of(v) for v in (True, None, np.float32(0.5), 3, "a")] == ["true", "", "0.5", "3", "a"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["x", "1"], r"'a', none missing.*Received: 'x' in row 1 of 1"),
        (["", "1"], r"'a', none missing.*Received: ''"),
        (["nan", "1"], r"'a', none missing.*Received: 'nan'"),
        (["inf", "1"], r"'a'.*Received: 'inf'"),
        (["1", "-1e39"], r"'b'\. Received: '-1e39'"),
    ],
)
def test_cells_that_cannot_be_are_refused(row, message):
    """A text where numbers are, a gap where training rows had none, infinity, and what no float32 holds."""
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
    "headings only": (b"a,b\n", "rows below the header"),
    "ragged": (b"a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
    "not UTF-8": ("a,b\ncafé,1\nthé,2\n".encode("latin-1"), "read"),
    "headings not UTF-8": ("é,b\n1,2\n".encode("latin-1"), "read"),
    "same headings": (b"a,a\n1,2\n", r"different name for each column.*'a'"),
    "no target": (b"a,b\n1,x\n2,\n3,y\n", "class in every row of the target 'b'.*row 2"),
    "one class": (b"a,b\n1,x\n2,x\n3,x\n", "1 different values in 3 rows"),
    "each its own class": (b"a,b\n1,x\n2,y\n3,z\n", "3 different values in 3 rows"),
    "one column": (b"a\n1\n2\n", "columns other than the target 'a'"),
    "infinite target": (b"a,b\n1,1.5\n2,inf\n3,2.5\n", "number in every row of the target 'b'.*'inf' in row 2"),
    "missing value of the target": (b"a,b\n1,1.5\n2,nan\n3,2.5\n", "'nan' in row 2"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_tables_are_told_in_one_line(fault, tmp_path):
    """Whatever is wrong with a file is one DataError that says where."""
    content, message = BAD[fault]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_dataset(DataConfig("table", path=str(tmp_path / "t.csv")))
    one_line(error)


def test_missing_files_and_columns_are_told(people, tmp_path):
    """No file, no table, no such target, no such column, the target among the features."""
    for path in ("", tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=r"--set data\.path=FILE") as error:
            load_dataset(DataConfig("table", path=str(path)))
        one_line(error)
    for options, message in (
        ({"target": "anwser"}, r"data\.target='anwser'. Did you mean 'answer'"),
        ({"columns": ("age", "twon")}, r"data\.columns='twon'. Did you mean 'town'"),
        ({"columns": ("age", "answer")}, "other than the target 'answer'"),
    ):
        with pytest.raises(DataError, match=message) as error:
            load_dataset(DataConfig("table", path=people, **options))
        one_line(error)


def test_parquet_and_csv_are_the_same_table(people, tmp_path):
    """Types of Parquet and texts of CSV give the same rows; a target is found by name, wherever it stands."""
    import pyarrow.csv
    import pyarrow.parquet

    typed = pyarrow.csv.read_csv(people)
    pyarrow.parquet.write_table(typed.select(["answer", "town", "age"]), tmp_path / "people.parquet")
    one = served("table", path=people)
    two = served("table", path=str(tmp_path / "people.parquet"), target="answer", columns=("age", "town"))
    assert one.dataset.table == two.dataset.table
    for split in one.dataset.splits:
        for ours, theirs in zip(one.raw(split, 100), two.raw(split, 100), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert one.dataset.labels == ("no", "yes")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters(people, tmp_path, delimiter):
    """Semicolons and tabs divide columns too."""
    content = Path(people).read_text(encoding="utf-8").replace(",", delimiter)
    (tmp_path / "other.csv").write_text("\ufeff" + content, encoding="utf-8")
    assert served("table", path=str(tmp_path / "other.csv")).dataset.table == served("table", path=people).dataset.table


@pytest.mark.parametrize(
    ("answers", "task", "labels"),
    [
        ([f"{i}.5" for i in range(40)], "regress", ("y",)),
        (list(range(40)), "regress", ("y",)),
        ([i % 3 + 8 for i in range(40)], "classify", ("8", "9", "10")),
        ([("true", "false")[i % 2] for i in range(40)], "classify", ("false", "true")),
        ([f"{i % 2}.0" for i in range(40)], "regress", ("y",)),
    ],
)
def test_task_is_inferred_and_can_be_overridden(answers, task, labels, tmp_path):
    """Texts and a few whole numbers are classes, other numbers a scale; `data.task` has the last word."""
    path = written(tmp_path / "t.csv", ("x", "y"), enumerate(answers))
    found = load_dataset(DataConfig("table", path=path))
    assert (found.task, found.labels) == (task, labels)
    if all(parse_number(str(a)) is not None for a in answers):
        assert load_dataset(DataConfig("table", path=path, task="regress")).labels == ("y",)
    if len(set(answers)) < 5:
        assert load_dataset(DataConfig("table", path=path, task="classify")).task == "classify"


def columns_of(pipeline):
    """Return the training rows as float64."""
    return pipeline.raw("train", 10_000)[0].astype("float64")


def test_statistics_are_those_of_numpy_on_iris():
    """Each way to normalize is NumPy's formula on the training rows in float64."""
    raw = columns_of(served("iris"))
    for way, mean, std in (
        ("channel", raw.mean(0), raw.std(0)),
        ("", raw.mean(0), raw.std(0)),
        ("zscore", [raw.mean()], [raw.std()]),
        ("minmax", raw.min(0), raw.max(0) - raw.min(0)),
    ):
        preprocessing = served("iris", normalize=way).preprocessing
        np.testing.assert_allclose(preprocessing.mean, np.broadcast_to(mean, 4), rtol=1e-12)
        np.testing.assert_allclose(preprocessing.std, np.broadcast_to(std, 4), rtol=1e-12)
    x = np.concatenate([np.asarray(x) for x, _ in served("iris", normalize="minmax").train(0)])
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6


@pytest.mark.parametrize("way", ["minmax", "zscore", "channel"])
def test_statistics_are_those_of_numpy_on_digits(way):
    """Of images all values count together, or each channel; the contract of the data gives way."""
    from training.datasets.digits import TRAIN, load_pixels

    pixels = load_pixels()[0][TRAIN.start : TRAIN.stop].astype("float64")
    preprocessing = served("digits", normalize=way).preprocessing
    wanted = (pixels.min(), np.ptp(pixels)) if way == "minmax" else (pixels.mean(), pixels.std())
    assert (preprocessing.mean[0], preprocessing.std[0]) == pytest.approx(wanted, rel=1e-14)
    assert served("digits").preprocessing == load_dataset(DataConfig("digits")).preprocessing


def test_statistics_of_a_stream_are_those_of_the_whole():
    """Batch by batch nothing is lost, also where values are large and differ little."""
    values = np.random.default_rng(0).normal(1e6, 1e-2, (1000, 5, 3))
    whole, parts = moments(values), streamed(np.array_split(values, 13))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(parts.std, values.std((0, 1)), rtol=1e-7)
    np.testing.assert_allclose(parts.over_all().std, [values.std()], rtol=1e-7)
    assert (parts.low == whole.low).all()
    assert (parts.high == whole.high).all()


def test_values_that_say_something_are_not_scaled(people):
    """Of a table numbers are scaled; gaps and categories stay 0 and 1. A column that does not vary is divided by 1."""
    pipeline = served("table", path=people)
    assert pipeline.dataset.table.is_number() == [True, False, False, False, False]
    assert pipeline.preprocessing.mean[1:] == (0.0,) * 4
    assert pipeline.preprocessing.std[1:] == (1.0,) * 4
    x = np.concatenate([np.asarray(x) for x, _ in pipeline.evaluate("train")])
    assert abs(x[:, 0].mean()) < 1e-6
    assert set(np.unique(x[:, 1:])) == {0.0, 1.0}


def test_constant_columns_are_harmless(tmp_path):
    """No division by zero."""
    path = written(tmp_path / "t.csv", ("a", "b", "y"), [(3, i, "xy"[i % 2]) for i in range(30)])
    preprocessing = served("table", path=path).preprocessing
    assert (preprocessing.mean[0], preprocessing.std[0]) == (3.0, 1.0)


def changed(dataset, split):
    """Return a dataset whose examples of a split are of other values altogether."""
    import tensorflow as tf

    def spoil(x, y):
        if x.dtype == tf.string:
            return tf.fill(tf.shape(x), "9999"), y
        return x * 1000, y

    spoilt = dataclasses.replace(dataset.splits[split], examples=dataset.splits[split].examples.map(spoil))
    return dataclasses.replace(dataset, splits=dataset.splits | {split: spoilt})


@pytest.mark.parametrize("way", ["minmax", "zscore", "channel"])
@pytest.mark.parametrize("name", ["iris", pytest.param("diabetes", marks=pytest.mark.slow)])
def test_nothing_leaks_from_validation_or_test(name, way, monkeypatch):
    """Whatever validation and test examples are, columns, statistics and scale stay; training examples change them."""
    import training.data.pipeline.opening as opening

    data = load_dataset(DataConfig(name, normalize=way))
    found = {}
    for split in ("", "validation", "test", "train"):
        given = changed(data, split) if split else data
        monkeypatch.setattr(opening, "load_dataset", lambda _, given=given: given)
        found[split] = training_statistics(served(name, normalize=way))
    assert found[""] == found["validation"] == found["test"]
    assert found["train"]["preprocessing"] != found[""]["preprocessing"]


def test_test_rows_teach_no_columns(people, tmp_path):
    """A category or a gap that only a test row has is in no contract."""
    names, *rows = [line.split(",") for line in Path(people).read_text(encoding="utf-8").split()]
    test = {
        tuple(c.decode() for c in x)
        for x, _ in load_dataset(DataConfig("table", path=people)).splits["test"].examples.as_numpy_iterator()
    }
    changed_rows = [[row[0], "elsewhere", row[2]] if row[0] and tuple(row[:2]) in test else row for row in rows]
    assert changed_rows != rows
    other = written(tmp_path / "other.csv", names, changed_rows)
    one, two = served("table", path=people), served("table", path=other)
    assert training_statistics(one) == training_statistics(two)
    found = two.raw("test", 100)[0]
    # Those without an age are not among the changed ones.
    assert not found[found[:, 1] == 0][:, 2:].any()


def test_options_that_cannot_apply_are_refused(people):
    """Statistics stated and measured at once, images' and texts' options on a table, columns of images."""
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
        Recipe("t").override(**{"data.normalize": "robust"})


def recipe(name, path="", **changes):
    """Return a recipe of seconds for a table."""
    values = {"optimizer": OptimizerConfig("adamw", 1e-2), "epochs": 5, "precision": "float32", "strategy": "one"}
    return Recipe("t", ModelConfig("mlp_tiny"), DataConfig(name, path=path, batch_size=16), **{**values, **changes})


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """A finished run on diabetes."""
    return training.train(recipe("diabetes", epochs=15), run=tmp_path_factory.mktemp("tables") / "run")


def test_regression_answers_in_the_units_of_the_data(regression):
    """Figures are those by hand, of the saved model opened with Keras alone; the best epoch has the lowest loss."""
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


def test_run_keeps_what_was_learnt(regression, tmp_path):
    """The contract, the scale and the columns are in the run; opening it again takes them, whatever the data is now."""
    kept = json.loads((regression.path / "data.json").read_text())
    assert set(kept) == {"preprocessing", "scale", "tabular"}
    kept["scale"]["mean"] = [7.0]
    kept["preprocessing"]["mean"] = [1.0] * 10
    run = Run.create(regression.recipe, tmp_path / "other", None, kept)
    pipeline = open_data(run)
    assert pipeline.dataset.scale.mean == (7.0,)
    assert pipeline.preprocessing.mean == (1.0,) * 10


@pytest.mark.parametrize("kept", [{"scale": 3}, {"tabular": {}}, {"preprocessing": {"mean": 1}}, {"other": 1}, [1]])
def test_damaged_statistics_of_a_run_are_told(regression, tmp_path, kept):
    """What cannot be read is one line, not a traceback."""
    run = Run.create(regression.recipe, tmp_path / "run")
    (run.path / "data.json").write_text(json.dumps(kept))
    with pytest.raises(RunError, match="training statistics that a run saves") as error:
        open_data(run)
    one_line(error)


def test_commands_print_what_is_meant(regression, zoo_command):
    """`zoo evaluate` prints errors in the data's units, and no accuracy."""
    code, out, err = zoo_command("evaluate", regression.path)
    assert (code, err) == (0, "")
    assert f"RMSE {regression.result()['test']['rmse']:.4f}" in out
    assert "accuracy" not in out


def test_table_with_gaps_and_categories_trains(people, tmp_path):
    """A run on a CSV file learns more than the larger class, and its columns turn rows into vectors."""
    run = training.train(recipe("table", people, epochs=40), run=tmp_path / "run")
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
    """Each says its figure is R2, has no top-1, and gives the progression itself; it verifies from its files alone."""
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
def test_values_that_are_not_equal_are_refused(values):
    """The control: values two hundredths of their range away are no longer those of a float artifact's source."""
    from export.core.format import formats
    from export.core.manifest import SAMPLES
    from export.core.samples import read_samples
    from export.verification.parity import compare, require

    artifact = values["onnx"]
    runtime, samples = export.load(artifact.path), read_samples(artifact.folder / SAMPLES)
    samples["logits"] = samples["logits"] + 0.02 * np.ptp(samples["logits"])
    parity = compare(runtime, samples, formats["onnx"].tolerance, artifact.manifest["metadata"])
    assert not parity.passed
    with pytest.raises(ParityError, match=r"max error 0\.02 of the value range.*r2 ") as error:
        require(parity, "it")
    one_line(error)


@pytest.mark.slow
def test_report_of_a_regression_says_what_is_meant(values, regression, zoo_command):
    """The page and the tables speak of R2 and errors in the data's units, not of accuracy or confusion."""
    content = export.report(regression, measure=False)
    assert content["summary"]["figure"] == "r2"
    assert content["summary"]["test_figures"]["RMSE"] == regression.result()["test"]["rmse"]
    page = (regression.path / "report.html").read_text(encoding="utf-8")
    assert "Test R²" in page
    assert "R² is the share" in page
    assert "Test accuracy" not in page
    code, out, err = zoo_command("verify", values["tflite"].path)
    assert (code, err) == (0, "")
    assert "R² " in out


@pytest.fixture(scope="module")
def wines(tmp_path_factory):
    """A run on the wines, whose columns differ a thousandfold in their ranges, and its artifacts by format."""
    run = training.train(recipe("wine", epochs=10), run=tmp_path_factory.mktemp("wines") / "run")
    return run, {a.format: a for a in export.convert(run, FORMATS)}


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
def test_columns_of_any_range_survive_int8(wines, fmt):
    """Int8 keeps what small columns say beside large ones: the classes of the source, in every format."""
    run, artifacts = wines
    parity = export.verify(artifacts[fmt].path).parity
    assert parity["passed"]
    assert parity["accuracy"] == parity["source_accuracy"] == run.result()["test"]["accuracy"]
    spans = np.ptp(open_data(run).raw("train", 1000)[0], axis=0)
    assert spans.max() > 1000 * spans.min()


@pytest.mark.slow
def test_artifacts_take_rows(wines, tmp_path):
    """Mappings and files become the vectors that an artifact takes; what does not fit is told in one line."""
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
    with pytest.raises(DataError, match="'alcohol', none missing") as error:
        export.encode_rows(path, [records[0] | {"alcohol": None}])
    one_line(error)
    with pytest.raises(DataError, match=r"rows='alcohol'"):
        export.encode_rows(path, written(tmp_path / "few.csv", ("proline", "ash"), [(1, 2)]))


@pytest.mark.slow
def test_vectors_need_an_artifact_of_a_table(artifacts):
    """An artifact for images has no columns."""
    with pytest.raises(RunError, match="tables"):
        export.encode_rows(artifacts["onnx"].path, [{"a": 1}])
