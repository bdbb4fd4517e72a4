"""Private APIs of TensorFlow, Keras, TensorFlow Datasets, SciPy and Optuna that training uses.

Private APIs of Keras graphs and layers are in `zoo.common.compat`. Each function names the upstream symbol;
`tests/training/common/test_compat.py` has a test for each.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zoo.common.lazy import LazyModule, keras, np, tf, tfds

_slurm = LazyModule("tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver")

# What get_seed returns where no global seed is set: tensorflow.python.framework.random_seed.DEFAULT_GRAPH_SEED.
NO_SEED = 87654321
# Methods that subclasses of Keras optimizers override.
APPLY_WEIGHT_DECAY = "_apply_weight_decay"
ALL_REDUCE_GRADIENTS = "_all_reduce_sum_gradients"
APPLY_GRADIENTS = "_backend_apply_gradients"
UPDATE_AVERAGES = "_update_model_variables_moving_average"
USE_ADAMW = "_should_use_adamw"
# An attribute that a subclass of tf.distribute.MirroredStrategy overrides: the first key of its collective operations.
COLLECTIVE_KEY_BASE = "_collective_key_base"


@contextlib.contextmanager
def without_global_seed() -> Iterator[None]:
    """Unset TensorFlow's global seed, which a shuffle would mix with its own; restore it at the end."""
    before, _ = tf.compat.v1.get_seed(1)
    tf.random.set_seed(None)
    try:
        yield
    finally:
        tf.random.set_seed(None if before == NO_SEED else before)


def step_count(optimizer: Any) -> Any:
    """Return the variable that counts steps, not updates: `keras.optimizers.Optimizer._iterations`.

    An optimizer that scales the loss never counts; the one inside it does, each step whose gradients are finite.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)._iterations


def variable_index(optimizer: Any, variable: Any) -> int:
    """Return the position of a variable among those of an optimizer: `Optimizer._get_variable_index`."""
    return optimizer._get_variable_index(variable)


def adam_moments(optimizer: Any, variable: Any) -> tuple[Any, Any]:
    """Return the running means of a variable's gradient and its square: `Adam._momentums`, `Adam._velocities`."""
    index = variable_index(optimizer, variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def is_decayed(optimizer: Any, variable: Any) -> bool:
    """Return whether weight decay applies to a variable: `Optimizer._use_weight_decay`."""
    return optimizer._use_weight_decay(variable)


def weight_averages(optimizer: Any) -> list[tuple[Any, Any]]:
    """Return pairs (weight, average): `Optimizer._trainable_variables`, `._model_variables_moving_average`."""
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


def gradient_sums(optimizer: Any, variables: Sequence[Any]) -> list[Any]:
    """Return the accumulator of each variable's gradients: `Optimizer._accumulated_gradients`."""
    return [optimizer._accumulated_gradients[variable_index(optimizer, v)] for v in variables]


def add_gradients(optimizer: Any, gradients: Sequence[Any], sums: Sequence[Any]) -> None:
    """Add gradients to their accumulators: `Optimizer._backend_increment_gradient_accumulators`."""
    optimizer._backend_increment_gradient_accumulators(gradients, sums)


def update_weights(optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
    """Clip gradients, decay and move weights, and reset the accumulators.

    `Optimizer._clip_gradients`, `._apply_weight_decay`, `._backend_update_step`,
    `._backend_reset_gradient_accumulators`.
    """
    gradients = optimizer._clip_gradients(gradients)
    optimizer._apply_weight_decay(variables)
    optimizer._backend_update_step(gradients, variables, optimizer.learning_rate)
    optimizer._backend_reset_gradient_accumulators()


def build_compiled(model: Any, labels: Any, outputs: Any) -> None:
    """Create the variables of compiled metrics and losses: `Model._compile_metrics`, `Model._compile_loss`."""
    model._compile_metrics.build(labels, outputs)
    model._compile_loss.build(labels, outputs)


def slurm_hosts(nodes: str, tasks: str) -> list[tuple[str, int]]:
    """Return (node, tasks) of a SLURM step: `tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver`.

    Args:
        nodes: SLURM_STEP_NODELIST, such as "n[1-2]".
        tasks: SLURM_STEP_TASKS_PER_NODE, such as "2(x2)".
    """
    return list(zip(_slurm.expand_hostlist(nodes), _slurm.expand_tasks_per_node(tasks), strict=True))


def lbfgsb_step(state: dict[str, Any], *, memory: int, tolerances: tuple[float, float], trials: int) -> None:
    """Advance SciPy's L-BFGS-B to the next request, in place: `scipy.optimize._lbfgsb.setulb` of SciPy 1.15 to 1.18.

    `scipy.optimize.minimize` is this call in a loop, and cannot start from a saved state.

    Args:
        state: the arrays of `setulb` by their names there.
        memory: pairs of steps and gradient changes, `m`.
        tolerances: `factr` and `pgtol`.
        trials: steps of a line search, `maxls`.
    """
    from scipy.optimize import _lbfgsb

    s, x = state, state["x"]
    free, none = np.zeros(x.size, "int32"), np.zeros(x.size)
    work = (s["wa"], s["iwa"], s["task"], s["lsave"], s["isave"], s["dsave"])
    _lbfgsb.setulb(memory, x, none, none, free, s["f"], s["g"], *tolerances, *work, trials, s["ln_task"])


def resume_trial(study: Any, frozen: Any) -> Any:
    """Return a trial of a study that can be reported to again: `optuna.trial.FrozenTrial._trial_id`."""
    import optuna

    return optuna.trial.Trial(study, frozen._trial_id)


@functools.cache
def decoupled_decay() -> Callable[[Any, Any], None]:
    """Return the weight decay of all Keras optimizers but Muon: `keras.optimizers.Adam._apply_weight_decay`."""
    return keras.optimizers.Adam._apply_weight_decay


def imagenet_classes() -> list[str]:
    """Return the WordNet ids of ImageNet's 1,000 classes in their order: a file inside the package of TFDS."""
    return tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
