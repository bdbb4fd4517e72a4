"""Losses and evaluation of numbers: in standard deviations and in the data's own units, as scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from training import Dataset, LossConfig
from training.data.dataset import TargetScale
from training.learning.metrics import value_metrics
from training.learning.tasks import TASKS


def test_loss_of_numbers_is_that_of_standardized_targets():
    """Targets in the data's own units are compared in standard deviations of the training targets, by hand."""
    data = Dataset("t", ("a", "b"), (3,), {}, task="regress", scale=TargetScale((150.0, 3.0), (80.0, 0.5)))
    truth = np.array([[230.0, 3.0], [70.0, 2.0]], "float32")
    values = np.array([[150.0, 3.5], [70.0, 2.0]], "float32")
    apart = np.array([[1.0, -1.0], [0.0, 0.0]])
    for name, wanted in (("auto", apart**2), ("mse", apart**2), ("mae", abs(apart)), ("huber", apart**2 / 2)):
        loss = TASKS["regress"].loss(LossConfig(name), None, data)
        assert float(np.mean(loss(truth, values))) == pytest.approx(wanted.mean(), rel=1e-6)
    plain = TASKS["regress"].loss(LossConfig())
    assert float(np.mean(plain(truth, values))) == pytest.approx(((truth - values) ** 2).mean(), rel=1e-6)


def test_evaluation_of_regression_matches_scikit_learn():
    """Errors are in the data's own units, R2 is the mean over targets, the loss is in standard deviations."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    draw = np.random.default_rng(0)
    truth = (draw.normal(size=(40, 2)) * [10, 0.1] + [100, 1]).astype("float32")
    values = (truth + draw.normal(size=(40, 2)) * [3, 0.05]).astype("float32")
    outputs = iter([values[:25], values[25:]])
    data = Dataset("t", ("a", "b"), (3,), {}, task="regress", scale=TargetScale((100.0, 1.0), (10.0, 0.1)))
    found = TASKS["regress"].evaluate(lambda *_, **__: next(outputs), [(None, truth[:25]), (None, truth[25:])], data)
    assert found["r2"] == pytest.approx(r2_score(truth, values), rel=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(truth, values), rel=1e-5)
    squares = ((truth - values).astype("float64") ** 2).mean()
    assert found["rmse"] == pytest.approx(np.sqrt(squares), rel=1e-5)
    assert root_mean_squared_error(truth[:, :1], values[:, :1]) > found["mae"]
    assert found["loss"] == pytest.approx((((truth - values) / [10, 0.1]) ** 2).mean(), rel=1e-4)
    assert (found["examples"], found["confusion"]) == (40, None)


def test_a_target_that_does_not_vary_has_nothing_to_explain():
    """R2 is 0 for a constant target, without a division by zero."""
    assert value_metrics(np.ones((5, 1)), np.zeros((5, 1)))["r2"] == 0.0
