"""The range test: its slope on a known curve, a rate that trains, a plot, and no other files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import training
from training.tuning.lr_finder import FIRST, LAST, _smoothed, _steepest
from zoo.common.errors import BadOption

QUICK = {"model.options": {"widths": [16]}}


def test_smoothing_is_corrected_for_its_beginning():
    """A constant stays what it is; a jump is followed slowly."""
    assert _smoothed([2.0] * 5) == pytest.approx([2.0] * 5)
    assert _smoothed([0.0, 1.0]) == pytest.approx([0.0, 0.1 / (1 - 0.81)])


def test_steepest_descent_of_a_known_curve():
    """A loss that is a logistic curve over log rate falls fastest in its middle; a rising loss never does."""
    rates = tuple(np.geomspace(1e-6, 1.0, 61).tolist())
    falling = [1 / (1 + np.exp(2 * np.log(rate / 1e-3))) for rate in rates]
    assert _steepest(rates, falling) == pytest.approx(1e-3, rel=0.1)
    assert _steepest(rates, [-value for value in falling]) is None
    # Values at the ends do not count.
    jump = [1.0] * (61 - LAST) + [0.0] * LAST
    assert _steepest(rates[: len(jump)], [2.0, *jump[1:]]) in (None, *rates[61 - LAST - 2 : 61 - LAST])
    assert rates[FIRST] > rates[0]


def test_command_draws_and_proposes(zoo_command, tmp_path, monkeypatch):
    """A rate between the ends, its curve as a PNG, JSON on request; no file besides the plot."""
    monkeypatch.chdir(tmp_path)
    options = ["--set", 'model.options={"widths": [16]}', "--steps", "60", "--low", "1e-5", "--high", "10", "--json"]
    code, out, err = zoo_command("lr-find", "digits_mlp", *options)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert 1e-5 < found["learning_rate"] < 10
    assert len(found["rates"]) == len(found["smoothed"]) <= 60
    assert [path.name for path in tmp_path.iterdir()] == ["lr_find.png"]
    picture = np.asarray(Image.open("lr_find.png").convert("L"))
    assert picture.shape[1] > 500
    assert picture.std() > 5


@pytest.mark.slow
def test_proposed_rate_trains(tmp_path):
    """Adam's proposal is in its usual range, well below the rate where the loss diverges."""
    found = training.find_learning_rate("digits_mlp", QUICK, low=1e-6, high=100.0, steps=80)
    assert 1e-4 < found.learning_rate < 1.0
    assert found.to_json()["learning_rate"] == found.learning_rate
    lowest = found.rates[int(np.argmin(found.smoothed))]
    assert found.learning_rate < lowest
    # The range test is as reproducible as training.
    again = training.find_learning_rate("digits_mlp", QUICK, low=1e-6, high=found.rates[9], steps=10)
    assert again.losses == pytest.approx(found.losses[:10], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        ({"low": 1.0, "high": 0.1}, {}, "0 < low < high"),
        ({"low": 0.0}, {}, "0 < low < high"),
        ({"steps": 5}, {}, r"more than 8 and at most [\d,]+ steps"),
        ({}, {"optimizer.name": "lbfgs"}, "an optimizer with a learning rate"),
    ],
)
def test_what_cannot_be_is_refused(options, overrides, message):
    """One line names the problem."""
    with pytest.raises(BadOption, match=message) as error:
        training.find_learning_rate("digits_mlp", {**QUICK, **overrides}, **options)
    assert "\n" not in str(error.value)
