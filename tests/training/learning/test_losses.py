"""Losses: their formulas, class weights, and options that do not fit together."""

from __future__ import annotations

import types

import numpy as np
import pytest

import training
import zoo
from training.data.pipeline.opening import open_pipeline
from training.learning.heads import make_training_model, to_inference_model
from training.learning.losses import check_token_loss, class_loss, class_weights, label_loss, value_loss
from training.recipe.config import LossConfig
from training.recipe.recipe import resolve
from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import keras, tf

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]], "float32")
LABELS = np.array([[1, 0, 0], [0, 0, 1]], "float32")


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def binary(y, z):
    return -(y * np.log(sigmoid(z)) + (1 - y) * np.log(1 - sigmoid(z)))


def test_losses_of_classes():
    """Cross-entropy over all classes or one by one, label smoothing and focal loss match their papers."""
    p = softmax(LOGITS)
    smooth = LABELS * 0.9 + 0.1 / 3
    formulas = [
        (LossConfig(), -(LABELS * np.log(p)).sum(-1)),
        (LossConfig("cross_entropy", label_smoothing=0.1), -(smooth * np.log(p)).sum(-1)),
        (LossConfig("binary_cross_entropy", label_smoothing=0.1), binary(smooth, LOGITS).mean(-1)),
        (LossConfig("focal", gamma=3.0), -(LABELS * (1 - p) ** 3 * np.log(p)).sum(-1)),
    ]
    for config, values in formulas:
        assert float(class_loss(config)(LABELS, LOGITS)) == pytest.approx(values.mean(), rel=1e-4), config


def test_weights_multiply_the_loss_of_each_class():
    """A class of weight 0 does not count; mixed labels count by their fractions."""
    p, weights = softmax(LOGITS), (2.0, 1.0, 0.0)
    found = float(class_loss(LossConfig(), weights)(LABELS, LOGITS))
    assert found == pytest.approx(-2 * np.log(p[0, 0]) / 2, rel=1e-5)
    mixed = np.array([[0.5, 0.5, 0], [0, 0.3, 0.7]], "float32")
    wanted = (-(mixed * np.log(p)).sum(-1) * (mixed * weights).sum(-1)).mean()
    assert float(class_loss(LossConfig(), weights)(mixed, LOGITS)) == pytest.approx(wanted, rel=1e-5)


def test_losses_of_several_labels():
    """The mean is over known labels; focal loss and weights apply label by label."""
    y = np.array([[1, 0, -1], [0, -1, 1]], "float32")
    known = y >= 0
    each = binary(np.maximum(y, 0), LOGITS)
    assert float(label_loss(LossConfig())(y, LOGITS)) == pytest.approx(each[known].mean(), rel=1e-4)
    # Logits of unknown labels do not matter.
    other = np.where(known, LOGITS, 99.0).astype("float32")
    assert float(label_loss(LossConfig())(y, other)) == pytest.approx(each[known].mean(), rel=1e-4)
    weights = np.array([3.0, 1.0, 0.5])
    found = float(label_loss(LossConfig(), tuple(weights))(y, LOGITS))
    assert found == pytest.approx((each * weights)[known].mean(), rel=1e-4)
    p = np.where(y == 1, sigmoid(LOGITS), 1 - sigmoid(LOGITS))
    focal = float(label_loss(LossConfig("focal", gamma=2.0))(y, LOGITS))
    assert focal == pytest.approx(((1 - p) ** 2 * each)[known].mean(), rel=1e-4)


def test_losses_of_numbers():
    """Squared and absolute errors, and Huber's: a square near 0, a line beyond delta."""
    truth, values = np.array([[0.0], [0.0]], "float32"), np.array([[0.5], [3.0]], "float32")
    assert float(value_loss(LossConfig())(truth, values)) == pytest.approx((0.25 + 9) / 2)
    assert float(value_loss(LossConfig("mae"))(truth, values)) == pytest.approx(3.5 / 2)
    huber = float(value_loss(LossConfig("huber", delta=2.0))(truth, values))
    assert huber == pytest.approx((0.125 + 2.0 * (3.0 - 1.0)) / 2)


@pytest.mark.parametrize(
    ("make", "config", "message"),
    [
        (class_loss, {"name": "mse"}, "loss of classes must be one of .* loss.name=mse"),
        (class_loss, {"name": "huber"}, "loss.name=huber"),
        (label_loss, {"name": "cross_entropy"}, "several labels at once"),
        (value_loss, {"name": "focal"}, "loss of numbers must be one of auto, mse, mae, huber"),
        (value_loss, {"label_smoothing": 0.1}, "loss.label_smoothing applies to classes"),
        (value_loss, {"balanced": True}, "loss.balanced applies to classes"),
        (value_loss, {"class_weight": (1.0,)}, "loss.class_weight applies to classes"),
        (class_loss, {"gamma": 1.0}, "loss.gamma applies to loss.name=focal"),
        (value_loss, {"name": "mse", "delta": 2.0}, "loss.delta applies to loss.name=huber"),
        (check_token_loss, {"name": "focal"}, "loss of tokens must be one of auto, cross_entropy"),
        (check_token_loss, {"balanced": True}, "classes of whole examples"),
    ],
)
def test_what_does_not_fit_is_refused(make, config, message):
    """A loss for another task, and unused keys, are refused."""
    with pytest.raises(BadOption, match=message) as error:
        make(LossConfig(**config))
    assert "\n" not in str(error.value)


def pipeline(labels, classes, task="classify"):
    """Return labels with the interface of a pipeline."""
    examples = tf.data.Dataset.from_tensor_slices((np.zeros(len(labels)), np.asarray(labels, "int64")))
    splits = {"train": training.Split(examples, len(labels))}
    dataset = types.SimpleNamespace(name="made", labels=tuple("abcdef"[:classes]), task=task, splits=splits)
    return types.SimpleNamespace(dataset=dataset)


def test_balanced_weights_are_those_of_scikit_learn():
    """A class counts inversely to its frequency, and the mean over all examples is 1."""
    from sklearn.utils.class_weight import compute_class_weight

    labels = [0] * 6 + [1] * 3 + [2]
    found = class_weights(LossConfig(balanced=True), pipeline(labels, 3))
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    assert np.mean(np.asarray(found)[labels]) == pytest.approx(1)
    several = class_weights(LossConfig(balanced=True), pipeline([[1, 0], [1, 1], [1, -1], [0, 0]], 2, "multilabel"))
    np.testing.assert_allclose(several, [4 / 6, 4 / 2])
    assert class_weights(LossConfig(), pipeline(labels, 3)) is None
    assert class_weights(LossConfig(class_weight=(1.0, 2.0, 0.0)), pipeline(labels, 3)) == (1.0, 2.0, 0.0)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"class_weight": (1.0, 2.0)}, BadOption, "needs 3 numbers"),
        ({"class_weight": (1.0, -2.0, 1.0)}, BadOption, "at least 0"),
        ({"class_weight": (0.0, 0.0, 0.0)}, BadOption, "needs 3 numbers"),
        ({"class_weight": (1.0, 1.0, 1.0), "balanced": True}, BadOption, "loss.class_weight or loss.balanced"),
        ({"balanced": True}, DataError, "none of 'c'"),
    ],
)
def test_weights_that_cannot_be_are_refused(config, error, message):
    """Refuses weights of the wrong length, below 0, all 0, given twice, or of a class without examples."""
    with pytest.raises(error, match=message) as raised:
        class_weights(LossConfig(**config), pipeline([0, 1, 1], 3))
    assert "\n" not in str(raised.value)


GOOGLENET = {
    "model.name": "googlenet_tiny",
    "model.options": {"auxiliary": True},
    "loss.heads": {"auxiliary1": 0.3, "auxiliary2": 0.1},
    "epochs": 1,
    "schedule.warmup_epochs": 0,
    "log.every": 0,
}


def test_heads_are_weighted_and_not_evaluated():
    """The training loss is that of the logits plus those of the heads; the evaluation loss is that of the logits."""
    recipe = resolve("digits_resnet", {**GOOGLENET, "loss.label_smoothing": 0.0}.items())
    data = open_pipeline(recipe, zoo.spec("googlenet_tiny"))
    with_heads = zoo.get("googlenet_tiny", input_shape=(8, 8, 1), auxiliary=True)
    model = make_training_model(with_heads, recipe, data)
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = next(iter(data.evaluate("validation")))
    outputs = model(x, training=False)
    own = {name: float(keras.losses.CategoricalCrossentropy(from_logits=True)(y, z)) for name, z in outputs.items()}
    assert set(own) == {"logits", "auxiliary1", "auxiliary2"}
    wanted = own["logits"] + 0.3 * own["auxiliary1"] + 0.1 * own["auxiliary2"]
    assert float(model.compute_loss(x, y, outputs, None, training=True)) == pytest.approx(wanted, rel=1e-5)
    assert float(model.compute_loss(x, y, outputs, None, training=False)) == pytest.approx(own["logits"], rel=1e-5)
    inference = to_inference_model(with_heads, recipe)
    np.testing.assert_allclose(inference(x), outputs["logits"], rtol=1e-6)
    assert not any(layer.name.startswith("auxiliary") for layer in inference.layers)


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("digits_mlp", {"loss.label_smoothing": 0.3, "regularize.l2": 0.1, "loss.balanced": True}),
        pytest.param("digits_mlp", {"loss.name": "focal"}, marks=pytest.mark.slow),
        pytest.param("diabetes_mlp", {"loss.name": "huber", "regularize.l1": 0.01}, marks=pytest.mark.slow),
    ],
    ids=["smoothed", "focal", "huber"],
)
def test_validation_and_evaluation_are_one_measure(tmp_path, recipe, changes):
    """`val_loss` is the loss of `zoo evaluate`, whatever is trained on; the training loss has all terms."""
    quick = {"epochs": 1, "schedule.warmup_epochs": 0, "save": "last", "log.every": 0, "log.misclassified": 0}
    run = training.train(recipe, {**quick, **changes}, run=tmp_path / "run")
    (row,) = run.metrics()
    assert row["val_loss"] == pytest.approx(training.evaluate(run, "validation").loss, rel=1e-4)
    assert row["loss"] != pytest.approx(row["val_loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"loss.heads": {}}, "Each auxiliary output needs a weight"),
        ({"loss.heads": {"auxiliary1": 0.3}}, "auxiliary2"),
        ({"loss.heads": {"auxiliary1": 0.3, "auxiliary2": 0.3, "side": 1.0}}, "which has auxiliary1, auxiliary2"),
        ({"model.options": {}}, "which has none"),
    ],
)
def test_heads_that_are_not_there_are_refused(overrides, message, tmp_path):
    """Every auxiliary output has a weight, and every weight has an output; no run directory is left."""
    with pytest.raises(BadOption, match=message) as error:
        training.train("digits_resnet", {**GOOGLENET, **overrides}, run=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_model_without_its_heads_is_exported(tmp_path):
    """A run with auxiliary classifiers is saved and exported as the model without them, and verified."""
    import export

    run = training.train("digits_resnet", GOOGLENET, run=tmp_path / "run")
    plain = zoo.get("googlenet_tiny", input_shape=(8, 8, 1))
    assert run.result()["parameters"] == sum(int(np.prod(v.shape)) for v in plain.trainable_variables)
    assert "accuracy" in run.metrics()[0]
    (artifact,) = export.convert(run, "onnx")
    assert artifact.manifest["parity"]["passed"]
