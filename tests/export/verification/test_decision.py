"""The decision: accuracy with labels, weighted agreement without, and exact limits for float formats."""

from __future__ import annotations

import json

import numpy as np
import pytest

from export.core.tolerance import FLOAT32_TOLERANCE, INT8_TOLERANCE, MIN_SNR
from export.verification.parity import require
from zoo.common.errors import ParityError

CLASSES = 10


def model(count, margin=6.0, accuracy=0.95, seed=0):
    """Return logits (count, 10) and labels of a classifier with such an accuracy, each top-1 about `margin` ahead."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    top = np.where(rng.random(count) < accuracy, labels, (labels + 1) % CLASSES)
    logits = rng.normal(size=(count, CLASSES))
    logits[np.arange(count), top] += margin * rng.uniform(0.2, 1.8, count)
    return logits.astype("float32"), labels


def noisy(logits, decibels, seed=1):
    """Return logits with noise of a signal-to-noise ratio."""
    signal = (logits - logits.mean(-1, keepdims=True)).std()
    return logits + np.random.default_rng(seed).normal(size=logits.shape) * signal * 10 ** (-decibels / 20)


def narrow_losses(count, lost):
    """Return source, artifact and labels: so many predictions change at narrow margins, all to wrong ones."""
    logits, labels = model(count, accuracy=1.0)
    logits[np.arange(count), labels] += 4.0
    wrong = logits.copy()
    for i in range(lost):
        order = np.argsort(logits[i])
        logits[i, order[-1]] = logits[i, order[-2]] + 0.1
        wrong[i, order[-1]] = logits[i, order[-2]] - 0.1
    return logits, wrong, labels


def two_of_43():
    """Return source, artifact and labels with two losses in 43 examples."""
    return narrow_losses(43, 2)


def test_a_loss_below_sampling_noise_passes_and_says_so(decide):
    """Two of 43 examples are 4.7 points and 95.3% agreement; the manifest has interval and verdict."""
    logits, wrong, labels = two_of_43()
    found = decide(wrong, logits, labels)
    assert (found.passed, found.decided_by, found.n, found.enough, found.failed) == (True, "accuracy", 43, False, ())
    assert (found.drop, found.agreement) == pytest.approx((2 / 43, 41 / 43))
    content = json.loads(json.dumps(found.to_json()))
    low, high = content["drop_interval"]
    assert low < 0 < 2 / 43 < high
    assert content["drop_p"] == 0.25
    assert content["snr"] > 20
    assert content["tolerance"]["snr"] == INT8_TOLERANCE.snr


def test_higher_accuracy_is_not_refused_for_its_agreement(decide):
    """An artifact that corrects errors of the source agrees less, and passes."""
    logits, wrong, labels = two_of_43()
    found = decide(logits, wrong, labels)
    assert found.agreement < INT8_TOLERANCE.agreement
    assert (found.drop, found.passed) == (pytest.approx(-2 / 43), True)


def test_enough_examples_decide(decide):
    """With a thousand examples a loss of a point and a half is refused, and none is verified."""
    logits, wrong, labels = narrow_losses(1000, 15)
    assert decide(logits, logits, labels).enough
    found = decide(wrong, logits, labels)
    assert (found.passed, found.failed, found.enough) == (False, ("accuracy",), True)
    with pytest.raises(ParityError, match=r"accuracy 98.5 % \(source 100 %, drop 1.5 points, 95% bounds \S+ and \S+, "):
        require(found, "it")


def test_max_drop_limits_the_loss_as_measured(decide):
    """A user's limit holds on the examples, whatever their number."""
    logits, wrong, labels = two_of_43()
    assert not decide(wrong, logits, labels, INT8_TOLERANCE.with_max_drop(4.0)).passed
    assert decide(wrong, logits, labels, INT8_TOLERANCE.with_max_drop(5.0)).passed


@pytest.mark.parametrize("count", [16, 43, 64])
@pytest.mark.parametrize("seed", range(5))
def test_changes_at_narrow_margins_pass_without_labels(decide, count, seed):
    """Noise of 24 dB changes predictions that nearly tie: the weighted agreement is higher than the agreement."""
    logits, _ = model(count, margin=2.0, seed=seed)
    found = decide(noisy(logits, 24, seed), logits)
    assert (found.passed, found.decided_by) == (True, "agreement")
    assert found.weighted_agreement >= found.agreement
    assert found.enough is (count >= 34)


def test_a_change_at_a_wide_margin_is_refused_without_labels(decide):
    """As many changed predictions as at narrow margins, but sure ones; the message has both agreements."""
    logits, wrong, _ = two_of_43()
    assert decide(wrong, logits).passed
    sure, margins = logits.copy(), np.ptp(np.partition(logits, -2, -1)[:, -2:], -1)
    for i in np.argsort(np.abs(margins - np.median(margins)))[:2]:
        second, first = np.argsort(sure[i])[-2:]
        sure[i, [first, second]] += [-margins[i] / 2 - 0.1, margins[i] / 2 + 0.1]
    found = decide(sure, logits)
    assert found.failed == ("agreement",)
    expected = (
        r"it failed verification on 43 examples: max error \S+ \(tolerance 0.5\), signal-to-noise ratio \S+ dB "
        r"\(minimum 10 dB\), top-1 agreement 95.34 %, \S+ % weighted by the margin of the source \(minimum 97 %\)$"
    )
    with pytest.raises(ParityError, match=expected):
        require(found, "it")


def test_too_few_examples_are_mentioned(decide):
    """A refusal by noise says that the examples could not decide."""
    logits, labels = model(16, accuracy=1.0)
    for given, metric in ((labels, "accuracy"), (None, "agreement")):
        found = decide(noisy(logits, 6), logits, given)
        assert "snr" in found.failed
        with pytest.raises(ParityError, match=f"16 examples are too few to decide by {metric}"):
            require(found, "it")


def test_a_common_offset_is_no_noise(decide):
    """A constant added to all logits of an example changes no prediction, and is no signal either."""
    logits, _ = model(43)
    offset = np.random.default_rng(0).normal(size=(43, 1))
    assert decide(logits + offset, logits).snr > 100
    assert decide(noisy(logits, 20) + 1000, logits + 1000).snr == pytest.approx(20, abs=1.5)


def random(logits, rng):
    return rng.normal(size=logits.shape) * logits.std() + logits.mean()


def permuted(logits, rng):
    return rng.permutation(logits)


def swapped(logits, rng):
    return logits[:, np.roll(np.arange(CLASSES), 1)]


def constant(logits, rng):
    return np.broadcast_to(logits.mean(0), logits.shape)


def negated(logits, rng):
    return -logits


def halved_noise(logits, rng):
    return logits + rng.normal(size=logits.shape) * logits.std() / 2


FAULTS = (random, permuted, swapped, constant, negated, halved_noise)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("count", [16, 43, 360])
@pytest.mark.parametrize("labeled", [True, False])
def test_broken_outputs_are_refused(decide, fault, count, labeled):
    """Each is refused for its accuracy, its agreement or its noise, with and without labels, for any source."""
    for accuracy in (0.95, 0.5, 0.1):
        logits, labels = model(count, accuracy=accuracy)
        found = decide(fault(logits, np.random.default_rng(1)), logits, labels if labeled else None)
        assert not found.passed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [16, 43, 360])
@pytest.mark.parametrize("labeled", [True, False])
def test_quantized_outputs_pass(decide, seed, count, labeled):
    """The control: noise of 30 dB as of int8, on the same models."""
    logits, labels = model(count, seed=seed)
    assert decide(noisy(logits, 30, seed), logits, labels if labeled else None).passed


def test_float_tolerances_are_exact(decide):
    """No interval excuses a float format; it reports the same numbers."""
    logits, wrong, labels = two_of_43()
    found = decide(wrong, logits, labels, FLOAT32_TOLERANCE)
    assert (found.decided_by, found.enough) == ("exact", None)
    assert found.failed == ("relative", "agreement", "accuracy")
    assert decide(logits * np.float32(1.00001), logits, labels, FLOAT32_TOLERANCE).passed
    assert decide(wrong, logits, None, FLOAT32_TOLERANCE).failed == ("relative", "agreement")


def test_max_drop_widens_the_other_limits_in_proportion(decide):
    """Twice the changed predictions are twice the noise; random outputs never pass."""
    wide = INT8_TOLERANCE.with_max_drop(3.6)
    assert (wide.agreement, wide.snr) == pytest.approx((0.94, INT8_TOLERANCE.snr - 6.02), abs=0.01)
    assert INT8_TOLERANCE.with_max_drop(0.1).snr == INT8_TOLERANCE.snr
    assert INT8_TOLERANCE.with_max_drop(100).snr == MIN_SNR
    logits, labels = model(360)
    assert not decide(
        random(logits, np.random.default_rng(0)), logits, labels, INT8_TOLERANCE.with_max_drop(100)
    ).passed


def values(count, seed=0):
    """Return predictions and truth of a regression."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(100, 20, (count, 1)).astype("float32")
    return truth + rng.normal(0, 8, truth.shape).astype("float32"), truth


@pytest.mark.parametrize("count", [16, 43, 360])
def test_regression(decide, count):
    """R² with the interval of a jackknife decides; a constant and shuffled values are refused, small errors are not."""
    source, truth = values(count)
    rng = np.random.default_rng(1)
    fine = source + rng.normal(0, 0.4, source.shape).astype("float32")
    found = decide(fine, source, truth, task="regress")
    assert (found.passed, found.decided_by, found.agreement, found.weighted_agreement) == (True, "r2", None, None)
    assert found.snr == pytest.approx(34, abs=5)
    assert found.drop_interval[0] <= found.drop <= found.drop_interval[1]
    assert decide(fine, source, task="regress").decided_by == "snr"
    for broken in (np.full_like(source, source.mean()), rng.permutation(source), source + 30):
        assert not decide(broken, source, truth, task="regress").passed
        assert not decide(broken, source, task="regress").passed


def label_logits(count, seed=0):
    """Return logits and labels (count, 5) of a multi-label classifier."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 5)) < 0.4).astype("int64")
    labels[:2] = [[1] * 5, [0] * 5]
    return ((labels - 0.5) * 4 + rng.normal(size=labels.shape)).astype("float32"), labels


@pytest.mark.parametrize("count", [16, *(pytest.param(n, marks=pytest.mark.slow) for n in (43, 360))])
def test_multilabel(decide, count):
    """The mean average precision decides; decisions near zero weigh little."""
    source, labels = label_logits(count)
    rng = np.random.default_rng(1)
    fine = source + rng.normal(0, 0.05, source.shape).astype("float32")
    found = decide(fine, source, labels, task="multilabel")
    assert (found.passed, found.decided_by) == (True, "mean_average_precision")
    assert decide(fine, source, task="multilabel").passed
    for broken in (rng.permutation(source), -source, np.broadcast_to(source.mean(0), source.shape)):
        assert not decide(broken, source, labels, task="multilabel").passed
        assert not decide(broken, source, task="multilabel").passed


def test_positions_of_texts_are_no_independent_examples(decide):
    """One changed text of many positions is no proof of a loss, though a binomial test of positions would say so."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (40, 12))
    source = (np.eye(4)[labels] * 8).astype("float32")
    source[0] /= 10
    wrong = source.copy()
    wrong[0] = np.roll(wrong[0], 1, axis=-1)
    found = decide(wrong, source, labels, task="tag")
    assert found.drop == pytest.approx(1 / 40)
    assert found.passed
    wrong = np.roll(source, 1, axis=-1)
    assert not decide(wrong, source, labels, task="tag").passed


def test_vectors_are_compared_by_their_neighbors(decide):
    """Without labels the nearest neighbor and the noise decide; a constant factor of all vectors is noise too."""
    source = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
    source /= np.linalg.norm(source, axis=-1, keepdims=True)
    shift = np.random.default_rng(1).normal(size=source.shape).astype("float32")
    near = decide(source + 0.005 * shift, source, task="embed")
    assert (near.passed, near.decided_by, near.accuracy, near.metric) == (True, "agreement", None, "neighbors")
    assert near.cosine > 0.995
    assert near.weighted_agreement > near.tolerance.agreement
    far = decide(source + 0.3 * shift, source, task="embed")
    assert set(far.failed) >= {"snr", "agreement"}
    assert far.cosine < 0.9
    with pytest.raises(ParityError, match=r"lowest cosine 0\.\d+, .*, nearest-neighbor agreement"):
        require(far, "x")
    swapped = decide(source[::-1], source, None, FLOAT32_TOLERANCE, task="embed")
    assert "relative" in swapped.failed
    assert decide(source, source, None, FLOAT32_TOLERANCE, task="embed").passed
    broken = source.copy()
    broken[3] = np.nan
    assert not decide(broken, source, task="embed").passed
