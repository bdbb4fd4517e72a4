"""Distillation in a recipe: the losses, valid teachers, and a student that is better with its teacher."""

from __future__ import annotations

import json
import types

import numpy as np
import pytest

import training
import zoo
from training.data.pipeline.opening import open_pipeline
from training.learning.build import build_training_model, compile_model
from training.learning.distillation import divergence, feature_loss, hard_loss, open_teacher
from training.learning.evaluation import load_model
from training.learning.regularization import stage_outputs
from training.learning.training_model import inference_model
from training.recipe.config import TeacherConfig
from training.recipe.recipe import resolve
from zoo.common.errors import BadOption, RunError
from zoo.common.lazy import keras

QUICK = {"schedule.warmup_epochs": 0, "log.every": 0, "log.misclassified": 0, "loss.label_smoothing": 0.0}


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_divergence():
    """It is T² KL at temperature T, and 0 for equal logits."""
    teacher, student = np.array([[1.0, 2.0, 4.0]], "float32"), np.array([[0.5, -1.0, 2.0]], "float32")
    t = 3.0
    p, q = softmax(teacher / t), softmax(student / t)
    assert float(divergence(teacher, student, t)) == pytest.approx(float(t * t * (p * np.log(p / q)).sum()), rel=1e-5)
    assert float(divergence(teacher, teacher, t)) == pytest.approx(0, abs=1e-6)


def test_hard_labels_and_features():
    """The cross-entropy with the top-1 class, and the mean square of a difference."""
    teacher, student = np.array([[1.0, 2.0, 4.0]], "float32"), np.array([[0.5, -1.0, 2.0]], "float32")
    assert float(hard_loss(teacher, student)) == pytest.approx(float(-np.log(softmax(student)[0, 2])), rel=1e-5)
    assert float(feature_loss(teacher, student)) == pytest.approx((0.25 + 9 + 4) / 3)


@pytest.fixture(scope="module")
def student(digits_run):
    """A function that returns the recipe of a student of the session's run, with changes, and its data."""

    def make(**overrides):
        options = {"model.name": "resnet_tiny", "model.options": {"width": 4}, "teacher.run": str(digits_run.path)}
        recipe = resolve("digits_resnet", {**QUICK, "data.augment": {}, **options, **overrides}.items())
        return recipe, open_pipeline(recipe, zoo.spec(recipe.model.name))

    return make


def built(recipe, data):
    model = build_training_model(recipe, data, start=True)
    compile_model(model, recipe, data, jit_compile=False)
    return model


def test_loss_is_the_documented_sum(student, digits_run):
    """alpha T² KL + (1 - alpha) labels + beta maps in training; only the labels in evaluation."""
    recipe, data = student(
        **{
            "teacher.alpha": 0.6,
            "teacher.temperature": 2.0,
            "teacher.beta": 0.5,
            "teacher.features": [3],
            "regularize.l2": 1e-3,
        }
    )
    model, teacher = built(recipe, data), load_model(digits_run)
    x, y = next(iter(data.evaluate("validation")))
    outputs = model(x, training=False)
    labels = float(keras.losses.CategoricalCrossentropy(from_logits=True)(y, outputs["logits"]))
    shrink = sum(
        1e-3 * float((np.asarray(v) ** 2).sum())
        for v in model.trainable_variables
        if v.name == "kernel" and "regressor" not in v.path
    )
    theirs = keras.Model(teacher.input, teacher.get_layer(stage_outputs(recipe, data.shape)[2]).output)(x)
    wanted = 0.4 * labels + 0.6 * float(divergence(teacher(x), outputs["logits"], 2.0)) + shrink
    wanted += 0.5 * float(feature_loss(theirs, keras.ops.convert_to_tensor(outputs["map3"])))
    assert float(model.compute_loss(x, y, outputs, None, training=True)) == pytest.approx(wanted, rel=1e-4)
    assert float(model.compute_loss(x, y, outputs, None, training=False)) == pytest.approx(labels, rel=1e-5)
    # Four times 4 channels become the teacher's four times 8.
    assert outputs["map3"].shape[-1] == 32


def test_teacher_is_not_part_of_the_training_model(student):
    """The training model, its checkpoints and the inference model have only the student's weights."""
    recipe, data = student()
    model = built(recipe, data)
    plain = zoo.get("resnet_tiny", width=4, input_shape=(8, 8, 1))
    assert model is not inference_model(model)
    assert [v.shape for v in model.variables] == [v.shape for v in plain.variables]
    assert [layer.name for layer in inference_model(model).layers] == [layer.name for layer in plain.layers]


def test_second_classifier_is_trained_by_the_teacher(student):
    """The second head of a DeiT trains on the teacher alone, the first on the labels; inference averages both."""
    options = {
        "model.name": "deit_micro_tiny",
        "model.options": {"distillation": "separate"},
        "teacher.hard": True,
        "teacher.alpha": 0.5,
    }
    recipe, data = student(**options)
    model = built(recipe, data)
    x, y = next(iter(data.evaluate("validation")))
    outputs = model(x, training=False)
    teacher = open_teacher(recipe.teacher, data)
    labels = float(keras.losses.CategoricalCrossentropy(from_logits=True)(y, outputs["logits"]))
    distilled = float(hard_loss(teacher.predict(x)["logits"], outputs["distillation_logits"]))
    found = float(model.compute_loss(x, y, outputs, None, training=True))
    assert found == pytest.approx(0.5 * labels + 0.5 * distilled, rel=1e-4)
    average = (outputs["logits"] + outputs["distillation_logits"]) / 2
    np.testing.assert_allclose(inference_model(model)(x), average, rtol=1e-5, atol=1e-6)
    same = zoo.get("deit_micro_tiny", distillation="average", input_shape=(8, 8, 1))
    assert {layer.name for layer in same.layers} == {layer.name for layer in inference_model(model).layers}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"teacher.run": "", "teacher.model": ""}, "either a run or a registered model"),
        ({"teacher.model": "resnet_tiny"}, "either a run or a registered model"),
        ({"teacher.beta": 1.0}, "each needs the other"),
        ({"teacher.features": [1]}, "each needs the other"),
        ({"teacher.beta": 1.0, "teacher.features": [4]}, "stages of resnet_tiny, from 1 to 3"),
        ({"data.image_size": [16, 16]}, "the same input_shape"),
        ({"data.preprocessing": {"mean": [0.0], "std": [255.0]}}, "the same preprocessing"),
        ({"teacher.run": "", "teacher.model": "resnet_tiny", "teacher.weights": ""}, "needs weights"),
        ({"teacher.run": "", "teacher.model": "resnet18"}, "with mean="),
        (
            {"teacher.beta": 1.0, "teacher.features": [1], "model.name": "convnext_micro_tiny", "model.options": {}},
            "one size",
        ),
    ],
)
def test_invalid_teachers_are_refused(student, overrides, message):
    """No teacher or two, other data, missing maps or maps of another size give one line."""
    with pytest.raises(BadOption, match=message) as error:
        build_training_model(*student(**overrides), start=True)
    assert "\n" not in str(error.value)


def test_unfinished_run_is_no_teacher(student, digits_run, tmp_path):
    """It has no model yet."""
    (tmp_path / "run").mkdir()
    content = json.loads((digits_run.path / "recipe.json").read_text())
    (tmp_path / "run/recipe.json").write_text(json.dumps(content))
    recipe, data = student(**{"teacher.run": str(tmp_path / "run")})
    with pytest.raises(RunError, match=r"no done\.json"):
        build_training_model(recipe, data, start=True)


def test_registered_model_is_a_teacher(student, digits_run):
    """Its weights are from a file, and it gets the same values."""
    preprocessing = zoo.spec("resnet_tiny").preprocessing.to_json()
    overrides = {"teacher.run": "", "teacher.model": "resnet_tiny", "teacher.weights": str(digits_run.model_path)}
    gray = {**preprocessing, "mean": preprocessing["mean"][:1], "std": preprocessing["std"][:1]}
    recipe, data = student(**overrides, **{"data.preprocessing": gray})
    teacher = open_teacher(recipe.teacher, data)
    x, _ = next(iter(data.evaluate("validation")))
    np.testing.assert_allclose(teacher.predict(x)["logits"], load_model(digits_run)(x, training=False), atol=1e-4)


def test_other_tasks_have_no_teacher():
    """Numbers are not classes."""
    data = types.SimpleNamespace(dataset=types.SimpleNamespace(task="regress", name="made"))
    with pytest.raises(BadOption, match="needs a classification dataset"):
        open_teacher(TeacherConfig(run="somewhere"), data)


@pytest.mark.slow
def test_student_is_better_with_its_teacher(student, digits_run, tmp_path):
    """The same small model with the same seed and few epochs is better with the teacher than alone."""
    ends = {}
    for name, teacher in (("distilled", {"teacher.run": str(digits_run.path), "teacher.alpha": 0.9}), ("alone", {})):
        options = {**QUICK, "model.name": "resnet_tiny", "model.options": {"width": 4}, "epochs": 10, **teacher}
        run = training.train("digits_resnet", options, run=tmp_path / name)
        ends[name] = run.result()["test"]["loss"]
    assert ends["distilled"] < ends["alone"]
