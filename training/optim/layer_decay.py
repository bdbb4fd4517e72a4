"""Layer-wise learning-rate decay (Clark et al. 2020, arXiv:2003.10555): layers near the input learn more slowly."""

from __future__ import annotations

import functools
import re
from typing import Any

from training.common.compat import APPLY_WEIGHT_DECAY, is_decayed, variable_index
from training.optim.ema import call_once
from zoo.common.lazy import tf

# A depth is a block, which is the prefix of its layers' names, or a layer outside of blocks.
BLOCK = re.compile(r"(?:stage\d+_)?[^_]+")
# Only a variable of this name makes a depth; norms, scales and tokens without one belong to the depth before them.
KERNEL = "kernel"


@functools.cache
def with_layer_decay(base: Any) -> Any:
    """Return a subclass of a Keras optimizer in which each variable has its own multiplier of the learning rate.

    The multiplier applies to the rate, and so to the weight decay: Adam is invariant to multiplied gradients.

    Attributes of an instance:
        multipliers: one number for each variable, in the order of `build`; set it before the first step.
    """

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable with its own rate."""
        base.update_step(self, gradient, variable, learning_rate * self.multipliers[variable_index(self, variable)])

    def apply_weight_decay(self: Any, variables: Any) -> None:
        """Decay each variable by its own rate times the weight decay."""
        if self.weight_decay is None:
            return
        call_once(functools.partial(_decay_all, self), [v.value for v in variables])

    members = {"__doc__": base.__doc__, "multipliers": (), "update_step": update_step}
    return type(base.__name__, (base,), members | {APPLY_WEIGHT_DECAY: apply_weight_decay})


def _decay_all(optimizer: Any, strategy: Any, variables: Any) -> None:
    """Decay variables on every device."""

    def decay(variable: Any) -> None:
        if is_decayed(optimizer, variable):
            multiplier = optimizer.multipliers[variable_index(optimizer, variable)]
            rate = tf.cast(optimizer.learning_rate * multiplier * optimizer.weight_decay, variable.dtype)
            variable.assign_sub(variable * rate)

    for variable in variables:
        strategy.extended.update(variable, decay, group=False)


def rate_multipliers(model: Any, decay: float) -> list[float]:
    """Return the multiplier of the learning rate of each trainable variable of a model.

    Args:
        model: a functional model.
        decay: multiplier of a depth relative to the next one.

    Returns:
        1.0 for the last depth and for variables outside of the model's layers, `decay` for the depth before it, and so
        on.
    """
    depths = _depths(model)
    last = max(depths.values(), default=0)
    return [decay ** (last - depths.get(v.path, last)) for v in model.trainable_variables]


def _depths(model: Any) -> dict[str, int]:
    """Return the depth of each trainable variable, by its path, in the order of the model."""
    depths: dict[str, int] = {}
    numbers: dict[str, int] = {}
    layers = [layer for layer in model.layers if layer.trainable_variables]
    blocks = {_block(layer) for layer in layers if any(v.name == KERNEL for v in layer.trainable_variables)}
    for layer in layers:
        name = _block(layer)
        if name not in numbers:
            # The first depth is 0 even without a kernel.
            numbers[name] = max(numbers.values(), default=-1) + int(name in blocks or not numbers)
        depths |= {v.path: numbers[name] for v in layer.trainable_variables}
    return depths


def _block(layer: Any) -> str:
    match = BLOCK.match(layer.name)
    return match[0] if match else layer.name
