"""Exponential moving average of weights (Polyak and Juditsky 1992), evaluated and saved instead of the last weights.

The optimizer holds the average, so that a checkpoint has both. The average includes the statistics of batch
normalization: those of the last weights do not fit the averaged ones.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from training.common.compat import UPDATE_AVERAGES, step_count, weight_averages
from zoo.common.lazy import keras, np, tf

# Variables of batch normalization that training estimates, in addition to its weights.
STATISTICS = ("moving_mean", "moving_variance")


@functools.cache
def with_ema(base: Any) -> Any:
    """Return a subclass of a Keras optimizer with an average that starts early and counts updates, not steps.

    Keras keeps `ema_momentum` of the average from the second step on, so that the average of a short run is mostly its
    initial weights, and moves it at each step of an accumulation. Here update t keeps
    min(ema_momentum, (1 + t) / (10 + t)), as TensorFlow's ExponentialMovingAverage does.

    An instance has `track(variables)`, to be called before `build`, which averages variables that are no weights, and
    `averages()`, which returns pairs (variable, average).
    """

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        base.__init__(self, *arguments, use_ema=True, **options)
        self.track([])

    def track(self: Any, variables: list[Any]) -> None:
        # Keras adds all variables in an attribute of an optimizer to its state; these belong to the model.
        vars(self)["tracked"] = variables

    def build(self: Any, variables: Any) -> None:
        """Create the averages after the state of the optimizer."""
        if self.built:
            return
        base.build(self, variables)
        vars(self)["tracked_averages"] = [self.add_variable_from_reference(v, name="average") for v in self.tracked]

    def averages(self: Any) -> list[tuple[Any, Any]]:
        """Return pairs (variable, average)."""
        return [*weight_averages(self), *zip(self.tracked, self.tracked_averages, strict=True)]

    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        """Update weights, then average them after their constraints, such as pruning masks."""
        base.apply(self, grads, trainable_variables)
        every = self.gradient_accumulation_steps or 1
        update = tf.cast(self.iterations, "float32")
        is_update = tf.equal(tf.math.floormod(step_count(self).value, every), 0)
        momentum = tf.minimum(self.ema_momentum, (1.0 + update) / (10.0 + update))
        # The first average is the first weights.
        rate = tf.where(is_update, 1.0 - tf.where(update > 1.0, momentum, 0.0), 0.0)
        pairs = [(variable.value, average.value) for variable, average in self.averages()]
        call_once(_update_averages, pairs, rate)

    def nothing(self: Any, _variables: Any) -> None:
        """Skip what Keras does: move the average a second time, and assign it to the model whenever `fit` ends."""

    members = {"__init__": init, "track": track, "build": build, "averages": averages, "apply": apply}
    members |= dict.fromkeys((UPDATE_AVERAGES, "finalize_variable_values"), nothing)
    return type(base.__name__, (base,), {"__doc__": base.__doc__, **members})


def call_once(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(strategy, *arguments)` once for all replicas of a step, where it may update their variables."""
    tf.distribute.get_replica_context().merge_call(function, args=arguments)


def _update_averages(strategy: Any, pairs: Iterable[tuple[Any, Any]], rate: Any) -> None:
    for variable, average in pairs:
        strategy.extended.update(average, _update_average, args=(variable, rate), group=False)


def _update_average(average: Any, variable: Any, rate: Any) -> None:
    # At a rate of 1 the difference would leave a rounding error of the previous average.
    value = tf.cast(variable, average.dtype)
    rate = tf.cast(rate, average.dtype)
    average.assign(tf.where(rate < 1.0, average + rate * (value - average), value))


def batch_statistics(model: Any) -> list[Any]:
    """Return the statistics of a model's batch normalization layers."""
    return [v for v in model.non_trainable_variables if v.name in STATISTICS]


@contextlib.contextmanager
def averaged_weights(model: Any) -> Iterator[None]:
    """Give a compiled model its averaged weights inside, if its optimizer averages; restore the others bit by bit."""
    pairs = _averages(model)
    before = [np.asarray(variable) for variable, _ in pairs]
    assign_averages(model)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, before, strict=True):
            variable.assign(value)


def assign_averages(model: Any) -> None:
    """Give a compiled model its averaged weights for good, if its optimizer averages."""
    for variable, average in _averages(model):
        variable.assign(np.asarray(average))


def _averages(model: Any) -> list[tuple[Any, Any]]:
    """Return pairs (variable, average); none before the first update, when there is no average yet."""
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    averages = getattr(inner, "averages", None)
    return averages() if averages and int(keras.ops.convert_to_numpy(inner.iterations)) else []
