"""Layer-wise learning-rate decay (Clark et al. 2020, arXiv:2003.10555): the nearer to the input, the slower."""

from __future__ import annotations

import functools
import re
from typing import Any

from training.optim.ema import once
from zoo.common.lazy import tf

# A step of depth is a block, which the names of its layers begin with, or a layer that stands alone.
STEP = re.compile(r"(?:stage\d+_)?[^_]+")
# What makes a step; norms, scales, tokens and places without one belong to the step before them.
MAKING = "kernel"


@functools.cache
def by_depth(base: Any) -> Any:
    """Return a class like a Keras optimizer in which each variable has a share of the learning rate of its own.

    It is the rate that is multiplied, and the decay with it: multiplied gradients would change nothing in Adam and its
    kin.

    Attributes of an instance:
        shares: one number for each variable, in the order of `build`; to be set before the first step.
    """

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable by its own rate."""
        base.update_step(self, gradient, variable, learning_rate * self.shares[self._get_variable_index(variable)])

    def apply_weight_decay(self: Any, variables: Any) -> None:
        """Shrink each variable by its own rate times the decay."""
        if self.weight_decay is None:
            return
        once(functools.partial(_decay_all, self), [v.value for v in variables])

    members = {"__doc__": base.__doc__, "shares": (), "update_step": update_step}
    return type(base.__name__, (base,), members | {"_apply_weight_decay": apply_weight_decay})


def _decay_all(optimizer: Any, strategy: Any, variables: Any) -> None:
    """Shrink variables on every device."""

    def decay(variable: Any) -> None:
        if optimizer._use_weight_decay(variable):
            share = optimizer.shares[optimizer._get_variable_index(variable)]
            rate = tf.cast(optimizer.learning_rate * share * optimizer.weight_decay, variable.dtype)
            variable.assign_sub(variable * rate)

    for variable in variables:
        strategy.extended.update(variable, decay, group=False)


def shares(model: Any, decay: float) -> list[float]:
    """Return the share of the learning rate of each of a model's trainable variables.

    Args:
        model: a functional network.
        decay: share of a step as against the one behind it.

    Returns:
        1.0 for the last step and for what is no layer of the network, `decay` for the one before it, and so on.
    """
    steps = _steps(model)
    last = max(steps.values(), default=0)
    return [decay ** (last - steps.get(v.path, last)) for v in model.trainable_variables]


def _steps(model: Any) -> dict[str, int]:
    """Return the number of the step of each trainable variable, by its path, in the order of the network."""
    steps: dict[str, int] = {}
    numbers: dict[str, int] = {}
    layers = [layer for layer in model.layers if layer.trainable_variables]
    made = {_step(layer) for layer in layers if any(v.name == MAKING for v in layer.trainable_variables)}
    for layer in layers:
        name = _step(layer)
        if name not in numbers:
            # The first step is 0 even if nothing in it makes one.
            numbers[name] = max(numbers.values(), default=-1) + int(name in made or not numbers)
        steps |= {v.path: numbers[name] for v in layer.trainable_variables}
    return steps


def _step(layer: Any) -> str:
    found = STEP.match(layer.name)
    return found[0] if found else layer.name
