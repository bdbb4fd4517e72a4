"""Complete runs on several targets of a table or a label file: training, weights, reports and named exports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from two_targets import QUIET, recipe, write

import export
import training
import zoo
from export.commands import _metric_text
from training import DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from training.learning.evaluation import load_model
from training.runs.run import Run
from zoo.common.errors import BadOption, ParityError, UnsupportedExport

SIZES = {"species": 3, "Body_mass_g": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run with the rows of its epochs."""
    root, rows = tmp_path_factory.mktemp("multitask"), []
    # In float32, as its artifacts are: processors with bfloat16 train in that by default.
    changes = {"loss.heads": {"Body_mass_g": 0.5}, "optimizer.learning_rate": 0.01, "precision": "float32"}
    made = recipe(write(root), **changes)
    return training.train(made, run=root / "run", observe=rows.append), rows


def test_training_on_two_targets(run):
    """Both targets are learned in their units; epochs, evaluation and the model's file have their names."""
    made, rows = run
    assert {"species_loss", "val_species_accuracy", "val_Body_mass_g_rmse", "Body_mass_g_mae"} <= rows[-1].keys()
    last = rows[-1]
    total = last["val_species_loss"] + 0.5 * last["val_Body_mass_g_loss"]
    assert last["val_loss"] == pytest.approx(total, rel=1e-4)
    found = training.evaluate(made)
    assert found.targets["species"]["accuracy"] > 0.85
    assert found.targets["Body_mass_g"]["r2"] > 0.8
    assert found.targets["Body_mass_g"]["rmse"] > 1.0
    assert found.score == pytest.approx(
        (found.targets["species"]["accuracy"] + found.targets["Body_mass_g"]["r2"]) / 2, rel=1e-6
    )
    assert found == type(found).from_json(json.loads(json.dumps(found.to_json())))
    import keras

    model = keras.saving.load_model(made.model_path, compile=False)
    assert {name: tuple(x.shape) for name, x in model.output.items()} == {k: (None, n) for k, n in SIZES.items()}
    assert [one["name"] for one in made.result()["outputs"]] == list(SIZES)


def test_weights_of_losses(run):
    """A weight names an output; 0 leaves its head untrained."""
    made, _ = run
    with pytest.raises(
        BadOption, match=r"loss.heads must name outputs, which are species, Body_mass_g. Received: .*mass"
    ):
        training.train(made.recipe.override(**{"loss.heads": {"mass": 1.0}}))
    with pytest.raises(BadOption, match="must leave a weight above 0"):
        training.train(made.recipe.override(**{"loss.heads": {"species": 0.0, "Body_mass_g": 0.0}}))


def test_weights_by_the_name_of_the_column(tmp_path):
    """As by the name of the output."""
    made = recipe(write(tmp_path), **{"loss.heads": {"Body mass (g)": 0.25}})
    outputs = open_pipeline(made, zoo.spec("mlp_tiny")).dataset.outputs
    assert {one.name: one.weight for one in outputs} == {"species": 1.0, "Body_mass_g": 0.25}


def test_training_starts_from_weights_of_the_same_targets(run, tmp_path):
    """The heads too; the features of such a file load without them."""
    made, _ = run
    features = zoo.get("mlp_tiny", input_shape=(2,), weights=str(made.model_path), classes=0)
    known = {layer.name: layer for layer in load_model(made).layers}
    for layer in features.layers:
        for mine, theirs in zip(layer.get_weights(), known[layer.name].get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    start = made.recipe.override(
        **{
            "model.weights": str(made.model_path),
            "optimizer.learning_rate": 1e-6,
            "epochs": 1,
            "optimizer.momentum": 0.0,
        }
    )
    again = training.train(start, run=tmp_path / "again")
    assert training.evaluate(again).score == pytest.approx(training.evaluate(made).score, abs=0.01)


FORMATS = ("keras", "onnx")


def check_artifact(artifact, examples):
    """Check an artifact's outputs by name, its manifest, its verification, and that a damaged one is refused."""
    manifest = artifact.manifest
    assert {one["name"]: tuple(one["shape"][1:]) for one in manifest["outputs"]} == {k: (n,) for k, n in SIZES.items()}
    described = {one["name"]: one for one in manifest["metadata"]["outputs"]}
    assert described["species"] == {
        "name": "species", "target": "species", "task": "classify", "labels": ["Adelie", "Chinstrap", "Gentoo"],
    }  # fmt: skip
    assert described["Body_mass_g"]["target"] == "Body mass (g)"
    assert "output" not in manifest["metadata"]
    parity = artifact.parity
    assert f"score {parity['accuracy']:.4f}" in _metric_text(parity)
    assert parity["metric"] == "score"
    assert {name: part["metric"] for name, part in parity["outputs"].items()} == {
        "species": "accuracy", "Body_mass_g": "r2",
    }  # fmt: skip
    assert all(part["passed"] for part in parity["outputs"].values())
    assert parity["accuracy"] == pytest.approx(np.mean([part["accuracy"] for part in parity["outputs"].values()]))
    found = export.load(artifact.path)(examples)
    assert list(found) == list(SIZES)
    assert {name: (values.shape, str(values.dtype)) for name, values in found.items()} == {
        name: ((len(examples), size), "float32") for name, size in SIZES.items()
    }
    export.verify(artifact.path)
    return found


def artifacts_of(made, formats, out):
    """Return artifacts of a run, and raw examples with what the run's model predicts for them."""
    from training.learning.evaluation import open_data

    pipeline = open_data(made)
    normalized, _ = pipeline.first_batch("test")
    model = load_model(made)
    wanted = model(normalized, training=False)
    raw, _ = pipeline._selected("test", np.arange(len(normalized)))
    raw = pipeline.encoder.raw(raw).numpy()
    return {one.format: one for one in export.convert(made, formats)}, raw, {k: v.numpy() for k, v in wanted.items()}


@pytest.mark.parametrize("names", [FORMATS, pytest.param(None, marks=pytest.mark.slow)], ids=["two", "all"])
def test_exports_have_named_outputs(run, names, tmp_path):
    """Each format returns the outputs by the names of the targets, each within its own tolerance."""
    made, _ = run
    names = list(names or export.list_formats())
    artifacts, raw, wanted = artifacts_of(made, names, tmp_path)
    assert list(artifacts) == names
    for name, artifact in artifacts.items():
        found = check_artifact(artifact, raw)
        exact = name in ("keras", "onnx", "saved_model", "tflite", "openvino")
        for key, values in found.items():
            spread = np.ptp(wanted[key])
            assert np.abs(values - wanted[key]).max() <= (1e-4 if exact else 0.2) * spread, (name, key)


def test_private_artifacts_are_verified_by_name_too(run):
    """Without examples of the data, each output is compared with that of the export."""
    (artifact,) = export.convert(run[0], ["keras"], private=True)
    assert artifact.manifest["private"]
    parity = export.verify(artifact.path).parity
    assert (set(parity["outputs"]), parity["accuracy"]) == (set(SIZES), None)


def test_compressions_need_one_output(run):
    """The reason is stated before anything is converted."""
    with pytest.raises(UnsupportedExport, match="with the outputs species, Body_mass_g"):
        export.convert(run[0], ["onnx"], compress="prune")


def test_the_verification_sees_each_output(run, tmp_path):
    """A small error of a large number does not hide a wrong class, nor the other way round."""
    from export.core.samples import read_samples
    from export.core.tolerance import FLOAT32_TOLERANCE
    from export.verification.parity import compare, require

    made, _ = run
    (artifact,) = export.convert(made, ["onnx"])
    runtime = export.load(artifact.path)
    samples = read_samples(artifact.folder / "samples.npz")
    good = compare(runtime, samples, FLOAT32_TOLERANCE, artifact.manifest["metadata"])
    assert good.passed
    for name, change in (("species", lambda v: v[:, ::-1]), ("Body_mass_g", lambda v: v + 0.05 * np.ptp(v))):
        logits = {**samples["logits"], name: np.ascontiguousarray(change(samples["logits"][name]))}
        bad = compare(runtime, {**samples, "logits": logits}, FLOAT32_TOLERANCE, artifact.manifest["metadata"])
        assert not bad.passed
        assert {key: part.passed for key, part in bad.outputs.items()} == {key: key != name for key in SIZES}
        with pytest.raises(ParityError, match=rf"failed verification on \d+ examples: {name}: max error"):
            require(bad, "x")


def test_a_report_shows_each_target(run):
    """The page has a row for each target, and the score."""
    made, _ = run
    report = export.report(made, measure=False)
    page = report.html.read_text()
    assert "Body_mass_g" in page
    assert "RMSE" in page
    assert json.loads(report.json.read_text())["summary"]["targets"]["species"]["metrics"]["accuracy"] > 0.8


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photographs, and a run on the class and the number of each."""
    tmp_path = tmp_path_factory.mktemp("labelled")
    (tmp_path / "photos").mkdir()
    rows = ["file,kind,size"]
    for i in range(40):
        values = np.random.default_rng(i).integers(0, 60, (12, 12, 3), "uint8")
        values[:, :6, i % 2] = 220
        Image.fromarray(values).save(tmp_path / "photos" / f"{i}.png")
        rows.append(f'{i}.png,{"ab"[i % 2] if i % 9 else ""},"{i},5"')
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = DataConfig("folder", path=str(tmp_path / "labels.csv"), image_size=(12, 12), channels=3, batch_size=8)
    data = data.__class__(**{**vars(data), "target": ("kind", "size")})
    made = Recipe("t", ModelConfig("mlp_tiny"), data, epochs=8).override(**{**QUIET, "optimizer.learning_rate": 0.01})
    return tmp_path / "photos", training.train(made, run=tmp_path / "run")


def test_label_files_of_images(photos):
    """Images with a class and a number each; a run reopens with the same outputs."""
    result = training.evaluate(Run.open(photos[1].path))
    assert result.targets["kind"]["accuracy"] == 1.0
    assert set(result.targets) == {"kind", "size"}


@pytest.mark.slow
def test_encoded_images_have_named_outputs(photos):
    """A SavedModel takes files, and returns the scores and the label of the class, and the number."""
    folder, found = photos
    (artifact,) = export.convert(found, ["saved_model"])
    runtime = export.load(artifact.path)
    content = [(folder / f"{i}.png").read_bytes() for i in (2, 3)]
    served = runtime.classify_bytes(content)
    assert served["kind"].argmax(-1).tolist() == [0, 1]
    signature = tf.saved_model.load(str(artifact.path)).signatures["serve_bytes"]
    outputs = signature(image_bytes=tf.constant(content))
    assert set(outputs) == {"kind", "kind_scores", "kind_labels", "size"}
    assert [label.decode() for label in outputs["kind_labels"].numpy()] == ["a", "b"]
    np.testing.assert_allclose(outputs["kind_scores"].numpy().sum(-1), 1.0, rtol=1e-5)
