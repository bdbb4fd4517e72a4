"""Losses, metrics and evaluation of several targets by hand, without those that are missing."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from training.data.dataset import Dataset, TargetScale
from training.data.outputs import Output, unit_targets
from training.learning.tasks import TASKS, describe_metrics
from training.recipe.config import LossConfig
from zoo.common.errors import BadOption

NAN = float("nan")
OUTPUTS = (
    Output("species", "species", "classify", ("a", "b", "c")),
    Output("age", "age", "regress", ("age",), weight=0.5),
    Output("tags", "tags", "multilabel", ("x", "y")),
)


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
