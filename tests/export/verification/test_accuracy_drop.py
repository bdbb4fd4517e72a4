"""The loss of accuracy: its exact test, its interval, and how often an artifact that loses nothing is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export.core.tolerance import INT8_TOLERANCE
from export.verification.accuracy_drop import Drop, jackknife_drop, paired_drop, sign_test

ALLOWED = INT8_TOLERANCE.drop


def pairs(count, lost, gained):
    """Return which examples artifact and source have right, of `count`."""
    right, source = np.ones(count, bool), np.ones(count, bool)
    right[:lost] = source[lost : lost + gained] = False
    return right, source


def drop(count, lost, gained=0):
    """Return the loss of that many examples."""
    return paired_drop(*pairs(count, lost, gained))


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 3), (1, 0), (4, 0), (5, 0), (5, 1), (20, 8), (300, 250)])
def test_sign_test_is_the_exact_binomial_tail(lost, gained):
    """Half of all discordant pairs are lost if nothing is lost."""
    n = lost + gained
    assert sign_test(lost, gained) == pytest.approx(sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n)


def test_no_difference_leaves_what_the_examples_cannot_show():
    """The rule of three: without a loss in n examples, it is below 3 / n with 95%."""
    for count in (16, 43, 360, 1000):
        found = drop(count, 0)
        assert (found.value, found.p) == (0.0, 1.0)
        assert found.high == pytest.approx(3 / count, rel=0.1)
        assert found.low == -found.high


def test_gains_count_against_losses():
    """The interval is that of the negative loss with losses and gains exchanged."""
    a, b = drop(100, 9, 2), drop(100, 2, 9)
    assert (a.value, a.low, a.high) == pytest.approx((-b.value, -b.high, -b.low))
    assert a.value == pytest.approx(0.07)


@pytest.mark.parametrize(("count", "lost", "gained", "refused"), [
    (43, 2, 0, False),  # 4.7 points, as for a MobileNetV2
    (43, 3, 1, False),
    (43, 4, 0, False),  # one of sixteen coins
    (43, 5, 0, True),
    (43, 0, 4, False),
    (360, 2, 0, False),  # within the tolerance
    (360, 5, 0, True),
    (360, 20, 17, False),
    (1000, 12, 2, True),
    (1000, 6, 0, False),  # real, and within the tolerance
    (16, 4, 0, True),  # more than the tolerance explains: the interval is above it
    (3, 3, 0, True),
    (2, 2, 0, False),
])  # fmt: skip
def test_losses_beyond_tolerance_and_sampling_are_refused(count, lost, gained, refused):
    """A loss is refused if it is above the tolerance, and either significant or out of its reach."""
    assert drop(count, lost, gained).exceeds(ALLOWED) is refused


def test_few_examples_do_not_decide():
    """The interval is on both sides of the tolerance, until there are a few hundred examples or a clear loss."""
    assert not drop(43, 0).is_decided(ALLOWED)
    assert not drop(43, 2).is_decided(ALLOWED)
    assert not drop(360, 0).is_decided(ALLOWED)
    assert drop(1000, 0).is_decided(ALLOWED)
    assert drop(43, 20).is_decided(ALLOWED)


@pytest.mark.parametrize("count", [8, 16, 43, 360])
@pytest.mark.parametrize("changed", [0.02, 0.1, 0.4])
def test_at_most_one_in_twenty_equal_artifacts_is_refused(count, changed):
    """An artifact that changes predictions and loses nothing; each bound of the interval fails as seldom."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(count, [changed / 2, changed / 2, 1 - changed], 1500)
    found = [drop(count, int(lost), int(gained)) for lost, gained, _ in counts]
    assert np.mean([one.exceeds(ALLOWED) for one in found]) < 0.06
    assert np.mean([one.low > 0 for one in found]) < 0.06
    assert np.mean([one.high < 0 for one in found]) < 0.06


@pytest.mark.parametrize("count", [16, 43, 360])
def test_a_large_loss_is_refused(count):
    """The control: of artifacts that lose half of all examples, nearly all are refused."""
    counts = np.random.default_rng(0).multinomial(count, [0.5, 0.01, 0.49], 300)
    assert np.mean([drop(count, int(lost), int(gained)).exceeds(ALLOWED) for lost, gained, _ in counts]) > 0.9


def test_jackknife_of_a_mean_is_its_standard_error():
    """For a mean, the interval is that of a t-test; a constant loss has no width."""
    losses = np.random.default_rng(0).normal(0.02, 0.05, 400)
    found = jackknife_drop(lambda some: float(losses[some].mean()), 400)
    assert found.value == pytest.approx(losses.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.73 * losses.std() / 20, rel=0.4)
    assert found.p < 0.01
    assert found.exceeds(ALLOWED)
    constant, single = jackknife_drop(lambda _: 0.01, 50), jackknife_drop(lambda _: 0.0, 1)
    assert (constant.low, constant.high, constant.p) == pytest.approx((0.01, 0.01, 0.0))
    assert single == Drop(0.0, 0.0, 0.0, 1.0)


def test_jackknife_does_not_refuse_noise():
    """Losses around zero are refused about as often as the level of the test."""
    rng, refused = np.random.default_rng(0), []
    for _ in range(300):
        losses = rng.normal(0.0, 0.2, 100)
        refused.append(jackknife_drop(lambda some, losses=losses: float(losses[some].mean()), 100).exceeds(ALLOWED))
    assert np.mean(refused) < 0.09
