"""Several targets of one table or label file: outputs by name, masked losses, metrics by output, named exports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import export
import training
import zoo
from export.commands import _metric_text
from training import DataConfig, ModelConfig, Recipe
from training.data.dataset import Dataset, TargetScale
from training.data.outputs import Output, identifiers, unit_targets
from training.data.pipeline.opening import open_pipeline
from training.data.readers.loading import load_dataset
from training.learning.evaluation import load_model
from training.learning.tasks import TASKS, describe_metrics
from training.recipe.config import LossConfig
from training.runs.run import Run
from zoo.common.errors import BadOption, DataError, ParityError, UnsupportedExport

COUNT, NAN = 240, float("nan")
OUTPUTS = (
    Output("species", "species", "classify", ("a", "b", "c")),
    Output("age", "age", "regress", ("age",), weight=0.5),
    Output("tags", "tags", "multilabel", ("x", "y")),
)
SIZES = {"species": 3, "Body_mass_g": 1}


def write(root, name="table.csv", gaps=True):
    """Write a table whose species follows from one column, and whose mass follows from another; returns its path."""
    draw = np.random.default_rng(0)
    kinds, x1, x2 = draw.integers(0, 3, COUNT), draw.normal(size=COUNT), draw.normal(size=COUNT)
    rows = ["wing,bill,species,Body mass (g)"]
    for i in range(COUNT):
        species = "NA" if gaps and i % 12 == 5 else ("Adelie", "Chinstrap", "Gentoo")[kinds[i]]
        mass = "" if gaps and i % 10 == 5 else f"{4000 + 500 * x2[i] + 50 * x1[i]:.1f}"
        rows.append(f"{x1[i] + 6 * kinds[i]:.4f},{x2[i]:.4f},{species},{mass}")
    path = root / name
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


TARGETS = ("species", "Body mass (g)")


# Without measurements of steps.
QUIET = {"log.every": 0, "log.misclassified": 0}


def recipe(path, **changes):
    """Return a recipe for both targets."""
    data = DataConfig("table", path=str(path), batch_size=32, target=TARGETS)
    return Recipe("both", ModelConfig("mlp_tiny"), data, epochs=16).override(**{**QUIET, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run with the rows of its epochs."""
    root, rows = tmp_path_factory.mktemp("multitask"), []
    # In float32, as its artifacts are: processors with bfloat16 train in that by default.
    changes = {"loss.heads": {"Body_mass_g": 0.5}, "optimizer.learning_rate": 0.01, "precision": "float32"}
    made = recipe(write(root), **changes)
    return training.train(made, run=root / "run", observe=rows.append), rows


def load(path, **options):
    """Return the dataset of a table."""
    return load_dataset(DataConfig("table", path=str(path), **{"target": TARGETS, **options}))


def test_columns_become_outputs(tmp_path):
    """Each target is inferred in a line; a row without one of them teaches the other, one without any is left out."""
    dataset = load(write(tmp_path))
    assert dataset.task == "multitask"
    assert dataset.labels == ("species: Adelie", "species: Chinstrap", "species: Gentoo", "Body mass (g)")
    assert [(one.name, one.task) for one in dataset.outputs] == [("species", "classify"), ("Body_mass_g", "regress")]
    both, gone = {i for i in range(COUNT) if i % 12 == 5 and i % 10 == 5}, len(range(5, COUNT, 12))
    assert sum(split.count for split in dataset.splits.values()) == COUNT - len(both)
    said = [
        f"target 'species': classification, 3 classes; missing in {gone - len(both)} rows, which teach the other "
        "targets only",
        "target 'Body mass (g)': regression, a number; data.tasks.Body mass (g)=classify makes it classes; its output "
        f"is Body_mass_g; missing in {24 - len(both)} rows, which teach the other targets only",
        f"Left out: {len(both)} rows without a target, 'NA' in {gone}; data.missing lists what counts as missing",
    ]
    assert [note for note in dataset.notes if "target" in note] == said
    # Splits are stratified by the species.
    y = np.concatenate([np.stack(list(split.labels())) for split in dataset.splits.values()])
    parts = {name: np.stack(list(split.labels()))[:, 0] for name, split in dataset.splits.items()}
    for number in range(3):
        share = (y[:, 0] == number).sum()
        assert abs((parts["train"] == number).sum() - 0.8 * share) <= 1


def test_options_of_targets(tmp_path):
    """Tasks are set by target, or for all of them; wrong names and values are refused in a line."""
    path = write(tmp_path, gaps=False)
    text = path.read_text().replace("wing,bill,", "wing,bill,", 1).splitlines()
    path.write_text(
        "\n".join(
            [text[0] + ",ring,tags", *(f"{row},{i % 3},{'x|y' if i % 2 else 'y'}" for i, row in enumerate(text[1:]))]
        )
    )
    found = load(path, target=("ring", "tags"), tasks={"ring": "regress", "tags": "multilabel"})
    assert [(one.task, one.labels) for one in found.outputs] == [("regress", ("ring",)), ("multilabel", ("x", "y"))]
    assert np.stack(list(found.splits["train"].labels())).shape[1] == 3
    plain = load(path, target=("ring", "tags"))
    assert [one.task for one in plain.outputs] == ["classify", "classify"]
    assert any("data.tasks.tags=multilabel reads 'a|b' as two labels" in note for note in plain.notes)
    one = load(path, target=("wing", "bill"), columns=("ring",), task="regress")
    assert (one.task, one.outputs, one.labels) == ("regress", (), ("wing", "bill"))
    made = recipe(path, **{"data.tasks.species": "classify"})
    assert made.data.tasks == {"species": "classify"}
    assert Recipe.from_json(made.to_json()) == made
    with pytest.raises(BadOption, match=r"data.tasks.species must be one of classify, regress, multilabel"):
        recipe(path, **{"data.tasks.species": "clasify"})
    with pytest.raises(BadOption, match=r"must name some of several data.target. Received: data.tasks.kind"):
        recipe(path, **{"data.tasks.kind": "classify"})
    with pytest.raises(DataError, match=r"data.task=multitask needs several targets. Received: data.target='ring'"):
        load(path, target="ring", task="multitask")
    with pytest.raises(
        DataError, match=r"one of the columns wing, bill, .* data.target='specie'. Did you mean 'species'"
    ):
        load(path, target=("specie", "ring"))


def test_columns_of_flags_are_labels(tmp_path):
    """Targets that are all 0 or 1 are several labels, as in a label file; data.task=multitask gives each an output."""
    rows = ["x,a,b", *(f"{i},{i % 2},{int(i % 3 == 0)}" for i in range(60))]
    (tmp_path / "flags.csv").write_text("\n".join(rows))
    dataset = load(tmp_path / "flags.csv", target=("a", "b"))
    assert (dataset.task, dataset.labels, dataset.outputs) == ("multilabel", ("a", "b"), ())
    several = load(tmp_path / "flags.csv", target=("a", "b"), task="multitask")
    assert [one.name for one in several.outputs] == ["a", "b"]


def test_names_of_outputs():
    """A name is an identifier in ASCII, different from the others and from those that models have anyway."""
    assert identifiers(["species", "Age"]) == ["species", "Age"]
    assert identifiers(["Body mass (g)", "größe", "日本", "2nd", "logits", "a b", "a.b"]) == [
        "Body_mass_g", "groe", "target_2", "target_2nd", "target_logits", "a_b", "a_b_2",
    ]  # fmt: skip
    assert all(name.isidentifier() for name in identifiers(["", "-", "a", "A"]))


def test_targets_of_the_loss():
    """Classes are one-hot; a missing class or number is NaN in all of its units."""
    raw = np.array([[2, 7.5, 1, 0], [NAN, 3.0, -1, 1], [0, NAN, 0, 0]], "float32")
    wanted = [[0, 0, 1, 7.5, 1, 0], [NAN, NAN, NAN, 3.0, -1, 1], [1, 0, 0, NAN, 0, 0]]
    np.testing.assert_array_equal(unit_targets(raw, OUTPUTS), np.array(wanted, "float32"))


def dataset():
    """Return a dataset of three targets, whose number has mean 10 and deviation 2."""
    scale = TargetScale((0.0, 10.0, 0.0, 0.0), (1.0, 2.0, 1.0, 1.0))
    return Dataset("t", (), (2,), {}, task="multitask", scale=scale, outputs=OUTPUTS)


def batch():
    """Return targets (4, 6) with missing ones, and outputs."""
    raw = np.array([[2, 8, 1, 0], [NAN, 14, -1, 1], [0, NAN, 0, 0], [1, 10, 1, 1]], "float32")
    return unit_targets(raw, OUTPUTS).numpy(), np.random.default_rng(0).normal(size=(4, 6)).astype("float32") * 3


def by_hand(truth, values):
    """Return the mean losses of the known targets of each output, in NumPy."""
    shifted = values[:, :3] - values[:, :3].max(1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    known = ~np.isnan(truth[:, 0])
    species = -(np.where(known[:, None], truth[:, :3], 0) * log).sum(1)[known].mean()
    numbers = ~np.isnan(truth[:, 3])
    age = (((truth[:, 3] - 10) / 2 - (values[:, 3] - 10) / 2)[numbers] ** 2).mean()
    marks, logits = truth[:, 4:], values[:, 4:].astype("float64")
    each = np.log1p(np.exp(-np.abs(logits))) + np.maximum(logits, 0) - logits * marks
    return {"species": species, "age": age, "tags": each[marks >= 0].mean()}


def test_loss_is_the_weighted_sum_of_known_targets():
    """Each output has the mean of its known targets; gradients do not reach what is missing."""
    truth, values = batch()
    wanted = by_hand(truth, values)
    loss = TASKS["multitask"].loss(LossConfig(), None, dataset())
    total = wanted["species"] + 0.5 * wanted["age"] + wanted["tags"]
    assert float(loss(truth, values)) == pytest.approx(total, rel=1e-5)
    variable = tf.Variable(values)
    with tf.GradientTape() as tape:
        found = loss(truth, variable)
    gradient = tape.gradient(found, variable).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[1, :3] == 0).all()
    assert gradient[2, 3] == 0
    assert gradient[1, 4] == 0
    assert (gradient[0] != 0).all()


def test_options_of_the_loss():
    """An option applies to the outputs that have it; one that applies to none is refused."""
    truth, values = batch()
    wanted = by_hand(truth, values)
    huber = TASKS["multitask"].loss(LossConfig("huber"), None, dataset())
    assert float(huber(truth, values)) != pytest.approx(sum(wanted.values()))
    smooth = TASKS["multitask"].loss(LossConfig(label_smoothing=0.2), None, dataset())
    assert float(smooth(truth, values)) != pytest.approx(wanted["species"] + 0.5 * wanted["age"] + wanted["tags"])
    for config, message in (
        (LossConfig(balanced=True), "apply to a single target"),
        (LossConfig(class_weight=(1.0, 2.0)), "apply to a single target"),
    ):
        with pytest.raises(BadOption, match=message):
            TASKS["multitask"].loss(config, None, dataset())
    numbers = Dataset("t", (), (2,), {}, task="multitask", outputs=(OUTPUTS[1],))
    with pytest.raises(BadOption, match="applies to none of the targets"):
        TASKS["multitask"].loss(LossConfig("focal"), None, numbers)


def test_metrics_by_output():
    """Running metrics have the name of the output in front, and skip missing targets, over batches of any size."""
    truth, values = batch()
    metrics = TASKS["multitask"].metrics(dataset())
    for part in (slice(0, 3), slice(3, 4)):
        for metric in metrics:
            metric.update_state(truth[part], values[part])
    found = {metric.name: float(metric.result()) for metric in metrics}
    known = ~np.isnan(truth[:, 0])
    assert found["species_accuracy"] == pytest.approx(
        (truth[known, :3].argmax(1) == values[known, :3].argmax(1)).mean(), abs=1e-6
    )
    numbers = ~np.isnan(truth[:, 3])
    assert found["age_mae"] == pytest.approx(np.abs(truth[numbers, 3] - values[numbers, 3]).mean(), rel=1e-5)
    wanted = by_hand(truth, values)
    assert found["species_loss"] == pytest.approx(wanted["species"], rel=1e-5)
    assert found["age_loss"] == pytest.approx(wanted["age"], rel=1e-5)
    marks = truth[:, 4:]
    assert found["tags_accuracy"] == pytest.approx(((values[:, 4:] > 0) == (marks > 0))[marks >= 0].mean())
    for metric in metrics:
        metric.reset_state()
        assert float(metric.result()) == 0


def test_evaluation_by_output():
    """Evaluation measures each output on the examples that have its target; the score is the mean of the main ones."""
    truth, values = batch()
    outputs = {"species": values[:, :3], "age": values[:, 3:4], "tags": values[:, 4:]}
    parts = iter(
        [{name: part[:3] for name, part in outputs.items()}, {name: part[3:] for name, part in outputs.items()}]
    )
    found = TASKS["multitask"].evaluate(lambda *_, **__: next(parts), [(None, truth[:3]), (None, truth[3:])], dataset())
    wanted = by_hand(truth, values)
    for name, loss in wanted.items():
        assert found["targets"][name]["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["loss"] == pytest.approx(wanted["species"] + 0.5 * wanted["age"] + wanted["tags"], rel=1e-5)
    assert {name: part["examples"] for name, part in found["targets"].items()} == {"species": 3, "age": 3, "tags": 4}
    mains = (found["targets"][name][key] for name, key in (
        ("species", "accuracy"), ("age", "r2"), ("tags", "mean_average_precision"),
    ))  # fmt: skip
    assert found["score"] == pytest.approx(np.mean(list(mains)))
    text = describe_metrics("multitask", found)
    assert text.startswith("score ")
    assert ", species accuracy " in text
    assert ", age RMSE " in text


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
