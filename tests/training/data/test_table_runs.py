"""Complete runs on tables: metrics in the data's units, saved statistics, and artifacts that take rows."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from loaded_data import one_line
from small_tables import written

import export
import training
import zoo
from export.core.format import formats
from export.core.manifest import SAMPLES
from export.core.samples import read_samples
from export.verification.parity import compare, require
from training import DataConfig, LogConfig, ModelConfig, OptimizerConfig, Recipe, Run
from training.data.columns.missing import cell_of
from training.data.columns.schema import ColumnSchema
from training.data.pipeline.opening import open_pipeline
from training.learning.build import build_model
from training.learning.evaluation import open_data
from zoo.common.errors import BadOption, DataError, ParityError, RunError


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
