"""The running mean of weights (Polyak and Juditsky 1992), which is evaluated and kept instead of the last weights.

The mean is held by the optimizer, so that a checkpoint has both. It follows the statistics of batch normalization too:
those of the last weights are not those of their mean.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from zoo.common.lazy import keras, np, tf

# What a layer measures in training beside its weights.
MEASURED = ("moving_mean", "moving_variance")


@functools.cache
def averaging(base: Any) -> Any:
    """Return a class like a Keras optimizer whose `use_ema` starts early, and counts updates and not steps.

    Keras keeps `ema_momentum` of the mean from the second step on, so that a short run's mean is mostly its first
    weights, and moves it at each step of an accumulation. Here update t keeps min(ema_momentum, (1 + t) / (10 + t)),
    as TensorFlow's ExponentialMovingAverage does.

    An instance has `follow(variables)`, to be called before `build`, which adds variables that are no weights, and
    `averages()`, which returns each variable with its mean.
    """

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        base.__init__(self, *arguments, use_ema=True, **options)
        self.follow([])

    def follow(self: Any, variables: list[Any]) -> None:
        # Keras takes all variables in an attribute of an optimizer for a part of its state; these are the model's.
        vars(self)["followed"] = variables

    def build(self: Any, variables: Any) -> None:
        """Make the means beside the state of the optimizer."""
        if self.built:
            return
        base.build(self, variables)
        vars(self)["means"] = [self.add_variable_from_reference(v, name="average") for v in self.followed]

    def pairs(self: Any) -> list[tuple[Any, Any]]:
        """Return each variable with its mean."""
        means = [*self._model_variables_moving_average, *self.means]
        return list(zip([*self._trainable_variables, *self.followed], means, strict=True))

    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        """Take a step; the mean is of the weights after their constraints, such as the masks of pruning."""
        base.apply(self, grads, trainable_variables)
        every = self.gradient_accumulation_steps or 1
        update = tf.cast(self.iterations, "float32")
        due = tf.equal(tf.math.floormod(self._iterations.value, every), 0)
        kept = tf.minimum(self.ema_momentum, (1.0 + update) / (10.0 + update))
        # The very first mean is the first weights.
        moved = tf.where(due, 1.0 - tf.where(update > 1.0, kept, 0.0), 0.0)
        found = [(variable.value, mean.value) for variable, mean in self.averages()]
        once(_move_all, found, moved)

    def nothing(self: Any, _variables: Any) -> None:
        """Keras would move the mean a second time, and put it into the model whenever `fit` ends."""

    members = {"__init__": init, "follow": follow, "build": build, "averages": pairs, "apply": apply}
    members |= dict.fromkeys(("_update_model_variables_moving_average", "finalize_variable_values"), nothing)
    return type(base.__name__, (base,), {"__doc__": base.__doc__, **members})


def once(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(strategy, *arguments)` once for all replicas of a step, where it may update their variables."""
    tf.distribute.get_replica_context().merge_call(function, args=arguments)


def _move_all(strategy: Any, pairs: Iterable[tuple[Any, Any]], moved: Any) -> None:
    for variable, mean in pairs:
        strategy.extended.update(mean, _move, args=(variable, moved), group=False)


def _move(mean: Any, variable: Any, moved: Any) -> None:
    # With a share of 1 the difference would leave a rounding error of what the mean was.
    value = tf.cast(variable, mean.dtype)
    share = tf.cast(moved, mean.dtype)
    mean.assign(tf.where(share < 1.0, mean + share * (value - mean), value))


def measured(model: Any) -> list[Any]:
    """Return the statistics of a model's normalization layers."""
    return [v for v in model.non_trainable_variables if v.name in MEASURED]


@contextlib.contextmanager
def averaged(model: Any) -> Iterator[None]:
    """Let a compiled model have its mean weights for a while, if its optimizer takes a mean; restored to the bit."""
    pairs = _pairs(model)
    before = [np.asarray(variable) for variable, _ in pairs]
    put_average(model)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, before, strict=True):
            variable.assign(value)


def put_average(model: Any) -> None:
    """Give a compiled model its mean weights for good, if its optimizer takes a mean."""
    for variable, mean in _pairs(model):
        variable.assign(np.asarray(mean))


def _pairs(model: Any) -> list[tuple[Any, Any]]:
    """Return each variable with its mean; none before the first update, when there is no mean yet."""
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    found = getattr(inner, "averages", None)
    return found() if found and int(keras.ops.convert_to_numpy(inner.iterations)) else []
