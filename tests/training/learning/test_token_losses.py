"""Losses and running metrics of tokens: by hand, without padding in any of loss, metric and gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from text_tasks import batch, by_hand, compiled, sequences

from training import LossConfig
from training.learning.tasks import TASKS


def loss_of(task, labels, logits, smoothing=0.0):
    """Return the loss as Keras computes it: the mean of the task's function over all positions."""
    return float(np.mean(TASKS[task].loss(LossConfig(label_smoothing=smoothing))(labels, logits)))


def metric_of(task, *batches):
    """Return the running metric after some batches."""
    (metric,) = TASKS[task].metrics(None)
    for labels, logits in batches:
        metric.update_state(labels, logits)
    return float(metric.result())


@sequences
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_is_the_mean_over_real_tokens(task, smoothing):
    """The loss of a batch is the mean over its tokens without padding, with any label smoothing."""
    labels, logits = batch(task)
    wanted = np.mean(by_hand(task, labels, logits, smoothing)[0])
    assert loss_of(task, labels, logits, smoothing) == pytest.approx(wanted, rel=1e-5)


@sequences
def test_loss_of_known_numbers(task):
    """Two tokens of two classes: ln(1 + e^-1) and ln(1 + e^1), their mean 0.8133; smoothed by 0.2, 0.8133 again."""
    ids = np.array([[2, 1, 0]])
    labels = np.array([[[0, 0, 1], [0, 1, 0], [0, 0, 0]]], "float32") if task == "tag" else ids
    logits = np.array([[[-99.0, 0.0, 1.0], [-99.0, 0.0, 1.0], [5.0, 5.0, 5.0]]], "float32")
    assert loss_of(task, labels, logits) == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2)
    assert metric_of(task, (labels, logits)) == 0.5


@pytest.mark.parametrize("task", ["tag", pytest.param("generate", marks=pytest.mark.slow)])
def test_loss_that_keras_reports_is_that_of_the_task(task):
    """Loss, without label smoothing, and accuracy of one batch from `evaluate` are the means by hand."""
    model, (x, y) = compiled(task, loss=LossConfig(label_smoothing=0.1))
    losses, right = by_hand(task, y, model(x))
    metrics = model.evaluate(x, y, batch_size=len(y), return_dict=True, verbose=0)
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx(np.mean(right), rel=1e-5)


@sequences
def test_metric_counts_tokens_over_batches(task):
    """The running accuracy weighs each token alike, also in batches of different lengths."""
    batches = [batch(task, seed=1, count=2, length=3), batch(task, seed=2, count=7, length=9)]
    right = [r for labels, logits in batches for r in by_hand(task, labels, logits)[1]]
    assert metric_of(task, *batches) == pytest.approx(np.mean(right), rel=1e-6)


@sequences
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_padding_has_no_influence(task, smoothing):
    """Logits at padding change neither loss, metric nor gradient; logits at a token change all."""
    import tensorflow as tf

    labels, logits = batch(task)
    real = labels.any(-1) if task == "tag" else labels > 0
    assert not real.all()

    def evaluate(values):
        with tf.GradientTape() as tape:
            z = tf.constant(values)
            tape.watch(z)
            loss = tf.reduce_mean(TASKS[task].loss(LossConfig(label_smoothing=smoothing))(labels, z))
        return float(loss), metric_of(task, (labels, values)), tape.gradient(loss, z).numpy()

    noise = np.random.default_rng(3).normal(size=logits.shape).astype("float32") * 100
    before, padding, tokens = (
        evaluate(logits + noise * where[..., None]) for where in (np.zeros_like(real), ~real, real)
    )
    assert before[:2] == padding[:2]
    np.testing.assert_array_equal(before[2], padding[2])
    assert not before[2][~real].any()
    assert before[0] != tokens[0]
    assert before[1] != tokens[1]


@sequences
def test_batch_of_padding_only_has_no_loss(task):
    """A batch without tokens gives no error and no NaN."""
    labels, logits = batch(task)
    assert loss_of(task, labels * 0, logits) == 0.0


@sequences
def test_gradient_of_padded_sequences_is_that_of_each_alone(task):
    """Longer padding gives the same gradients of all weights."""
    import tensorflow as tf

    model, whole = compiled(task)
    x, y = tf.nest.map_structure(lambda t: t[:4], whole)
    loss = TASKS[task].loss(LossConfig(label_smoothing=0.1))

    def gradients(inputs, labels):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(labels, model(inputs)))
        return [
            np.asarray(tf.convert_to_tensor(g))
            for g in tape.gradient(value, [v.value for v in model.trainable_variables])
        ]

    counts = np.asarray(y).any(-1).sum(-1) if task == "tag" else (np.asarray(y) > 0).sum(-1)
    rows = [gradients(tf.nest.map_structure(lambda t, i=i: t[i : i + 1], x), y[i : i + 1]) for i in range(len(y))]
    for whole, *parts in zip(gradients(x, y), *rows, strict=True):
        wanted = sum(part * n for part, n in zip(parts, counts, strict=True)) / counts.sum()
        np.testing.assert_allclose(whole, wanted, atol=2e-6 + 1e-4 * np.abs(wanted).max())
