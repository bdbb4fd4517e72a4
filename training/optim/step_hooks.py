"""Subclasses of Keras optimizers with the hooks that a training step needs: measuring gradients, and several replicas.

Keras sums gradients over replicas last: each replica clips, accumulates and checks its own gradients. Under
`sum_gradients_first` the sum comes first, so that the result does not depend on the number of replicas.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from training.common.compat import (
    ALL_REDUCE_GRADIENTS,
    APPLY_GRADIENTS,
    add_gradients,
    gradient_sums,
    step_count,
    update_weights,
)
from training.optim.ema import call_once
from zoo.common.lazy import keras, tf


@functools.cache
def observable(base: Any) -> Any:
    """Return a subclass of a Keras optimizer that shows its gradients to an observer.

    Attributes of an instance:
        observer: called with (gradients, variables) before each `apply`, inside the compiled step; None for nobody.
        trained: the variables of `stateless_apply`, where they are not all that the optimizer was built with; None for
            all.
    """

    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        """Show the gradients, then apply them."""
        if self.observer is not None:
            self.observer(grads, trainable_variables)
        base.apply(self, grads, trainable_variables)

    def stateless_apply(self: Any, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        """Return the updated values of the trained variables and of the optimizer, as JAX' training step needs."""
        if self.trained is None:
            return base.stateless_apply(self, optimizer_variables, grads, trainable_variables)
        values = [*zip(self.trained, trainable_variables, strict=True)]
        values += zip(self.variables, optimizer_variables, strict=True)
        with keras.StatelessScope(state_mapping=values) as scope:
            self.apply(grads, self.trained)
        return tuple([scope.get_current_value(v) for v in found] for found in (self.trained, self.variables))

    members = {"observer": None, "trained": None, "apply": apply, "stateless_apply": stateless_apply}
    return type(base.__name__, (base,), {"__doc__": base.__doc__, **members})


@functools.cache
def sum_gradients_first(base: Any) -> Any:
    """Return a subclass of a Keras optimizer that sums gradients over all replicas before anything else."""
    if issubclass(base, keras.optimizers.LossScaleOptimizer):
        return _summing_scaler(base)

    def apply_gradients(self: Any, grads_and_vars: Any) -> Any:
        """Sum the gradients over replicas, then apply them."""
        return base.apply_gradients(self, self.sum_over_replicas(grads_and_vars))

    def sum_over_replicas(self: Any, grads_and_vars: Any) -> Any:
        """Return pairs (sum of gradients, variable)."""
        return getattr(base, ALL_REDUCE_GRADIENTS)(self, grads_and_vars)

    def all_reduce(_self: Any, grads_and_vars: Any) -> Any:
        """Return the pairs as they are: they are summed already."""
        return list(grads_and_vars)

    def apply(self: Any, gradients: Any, variables: Any) -> None:
        """Accumulate or update; all replicas decide together."""
        if not self.gradient_accumulation_steps:
            getattr(base, APPLY_GRADIENTS)(self, gradients, variables)
            return
        call_once(functools.partial(_accumulate_or_update, self), gradients, variables)

    members = {"apply_gradients": apply_gradients, "sum_over_replicas": sum_over_replicas}
    members |= {ALL_REDUCE_GRADIENTS: all_reduce, APPLY_GRADIENTS: apply}
    return type(base.__name__, (base,), {"__doc__": base.__doc__, **members})


def _summing_scaler(base: Any) -> Any:
    """Return a subclass of a loss-scaling optimizer that sums gradients by its inner optimizer, before the check."""

    def apply_gradients(self: Any, grads_and_vars: Any) -> Any:
        """Sum the gradients over replicas, then apply them."""
        return base.apply_gradients(self, self.inner_optimizer.sum_over_replicas(grads_and_vars))

    return type(base.__name__, (base,), {"__doc__": base.__doc__, "apply_gradients": apply_gradients})


def _accumulate_or_update(optimizer: Any, strategy: Any, gradients: Any, variables: Any) -> None:
    """Choose for all replicas at once between adding gradients to their sums and updating weights.

    Keras chooses inside of each replica, which cannot wait for another there.
    """
    every = optimizer.gradient_accumulation_steps

    def update(gradients: Any, variables: Any) -> None:
        sums = gradient_sums(optimizer, variables)
        means = [(gradient + sum_) / every for gradient, sum_ in zip(gradients, sums, strict=True)]
        update_weights(optimizer, means, variables)

    def add(gradients: Any, variables: Any) -> None:
        add_gradients(optimizer, gradients, gradient_sums(optimizer, variables))

    def on_each_replica(action: Callable[[Any, Any], None]) -> bool:
        strategy.extended.call_for_each_replica(action, args=(gradients, variables))
        return True

    is_update = tf.equal((tf.convert_to_tensor(step_count(optimizer)) + 1) % every, 0)
    tf.cond(is_update, lambda: on_each_replica(update), lambda: on_each_replica(add))
