"""L-BFGS (Liu and Nocedal 1989), SciPy's, on the loss of all training data at once: for small models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from training.augment.augment import is_active
from training.common.compat import lbfgsb_step
from training.data.pipeline.pipeline import Pipeline
from training.optim.ema import STATISTICS
from training.recipe.config import OptimizerConfig
from training.recipe.limits import LBFGS
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np, tf

# Options of stochastic optimizers.
STOCHASTIC = (
    "weight_decay",
    "clip_norm",
    "clip_each",
    "clip_value",
    "beta_1",
    "beta_2",
    "epsilon",
    "rho",
    "layer_decay",
    "accumulate",
    "ema",
)
MEMORY = 10  # pairs of steps and gradient changes
# SciPy's task codes: start, evaluate the loss, an iteration is complete.
START, EVALUATE, ITERATED = 0, 3, 1
# SciPy's defaults: relative tolerance of the loss, tolerance of the gradient, and steps of a line search.
LOSS_TOLERANCE, GRADIENT_TOLERANCE, TRIALS = 2.2204460492503131e-09, 1e-5, 20
PASSES = 100  # maximum mean number of passes over the data in an iteration


@dataclasses.dataclass(frozen=True)
class Iteration:
    """The result of an iteration.

    Args:
        loss: loss of all training data.
        passes: forward and backward passes over all training data since `minimize` was called.
    """

    loss: float
    passes: int


def is_lbfgs(recipe: Recipe) -> bool:
    """Return whether a recipe uses L-BFGS."""
    return recipe.optimizer.name.lower() == LBFGS


def in_float32(recipe: Recipe) -> Recipe:
    """Return a recipe with the precision that L-BFGS needs if the recipe leaves it open."""
    return dataclasses.replace(recipe, precision="float32") if recipe.precision == "auto" else recipe


def check_lbfgs(recipe: Recipe, pipeline: Pipeline, model: Any, *, precision: str, replicas: int) -> None:
    """Raise BadOption for options that make the loss depend on more than the weights."""
    count, plain = pipeline.dataset.splits["train"].count, OptimizerConfig()
    random = [layer.name for layer in model.layers if getattr(layer, "seed_generator", None) is not None]
    averaged = [v.path for v in model.non_trainable_variables if v.name in STATISTICS]
    given = [key for key in STOCHASTIC if getattr(recipe.optimizer, key) != getattr(plain, key)]
    reasons = {
        f"data.batch_size={recipe.data.batch_size} of {count} training examples: it needs all in one batch. "
        f"Set data.batch_size={count}": pipeline.steps_per_epoch > 1,
        "data.augment: augmentation changes the loss at every evaluation. Turn it off": is_active(recipe.data.augment),
        f"{''.join(random[:1])}: dropout changes the loss at every evaluation. Set it to 0": bool(random),
        f"{''.join(averaged[:1])}: batch normalization updates its averages at every trial of a line search. Use a "
        "model without it": bool(averaged),
        f"optimizer.{''.join(given[:1])}: it does not use this option. Leave it out": bool(given),
        f"precision={precision}: its line search needs float32. Set precision=float32": (precision != "float32"),
        f"replicas={replicas}: it runs on one device. Set strategy=one": replicas > 1,
        f"regularize.l1={recipe.regularize.l1}: it needs a smooth loss. Use regularize.l2": bool(recipe.regularize.l1),
        "regularize.spectral_norm: it has no constraints. Turn it off": recipe.regularize.spectral_norm,
    }
    for reason, holds in reasons.items():
        if holds:
            raise BadOption(f"optimizer.name={LBFGS} does not support this option. Received: {reason}.")


class SearchState:
    """The state of L-BFGS between two iterations, as variables for checkpoints; the model does not track them."""

    def __init__(self, size: int) -> None:
        self._variables = [
            keras.Variable(array, dtype=str(array.dtype), trainable=False, name=name)
            for name, array in _initial_state(size).items()
        ]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._variables)


def add_search_state(model: Any) -> None:
    """Give a model the state of L-BFGS between two iterations, which its checkpoints include."""
    model.search = SearchState(sum(int(np.prod(v.shape)) for v in model.trainable_variables))


def _initial_state(size: int) -> dict[str, Any]:
    """Return the arrays of SciPy's L-BFGS-B, by its own names, before the first iteration."""
    m, lengths = MEMORY, {"task": 2, "ln_task": 2, "lsave": 4, "isave": 44, "iwa": 3 * size}
    reals = {"x": (size,), "f": (), "g": (size,), "dsave": (29,), "wa": (2 * m * size + 5 * size + 11 * m * m + 8 * m,)}
    return {name: np.zeros(shape) for name, shape in reals.items()} | {
        name: np.zeros(length, "int32") for name, length in lengths.items()
    }


def minimize(model: Any, batch: tuple[Any, Any], iterations: int, after: Callable[[Iteration], bool]) -> str:
    """Minimize the loss of a compiled model, starting from the state of the last call or of a checkpoint.

    Args:
        model: a compiled model with a search state; see `add_search_state`.
        batch: (x, y) of all training examples.
        iterations: maximum number of iterations.
        after: called after each iteration with the weights in place; returns True to stop.

    Returns:
        "epochs" after the last iteration, "patience" if `after` stopped, "converged" within the tolerances.
    """
    point, done, passes = _Point(model, batch), 0, 0
    state = {variable.name: np.asarray(variable).copy() for variable in model.search}
    if state["task"][0] == START:
        state["x"] = point.weights()
    while passes <= PASSES * iterations:
        _advance(state)
        if state["task"][0] == EVALUATE:
            passes += 1
            state["f"], state["g"] = point.evaluate(state["x"])
        elif state["task"][0] == ITERATED:
            done += 1
            point.assign(state["x"])
            for variable in model.search:
                variable.assign(state[variable.name])
            if after(Iteration(float(state["f"]), passes)):
                return "patience"
            if done == iterations:
                return "epochs"
        else:
            break
    point.assign(state["x"])
    return "converged"


def _advance(state: dict[str, Any]) -> None:
    """Advance SciPy to where it needs the loss at x, has completed an iteration, or has converged."""
    tolerances = (LOSS_TOLERANCE / np.finfo("float64").eps, GRADIENT_TOLERANCE)
    lbfgsb_step(state, memory=MEMORY, tolerances=tolerances, trials=TRIALS)


class _Point:
    """The weights of a model as one vector, and the loss there."""

    def __init__(self, model: Any, batch: tuple[Any, Any]) -> None:
        self._model, self._variables = model, model.trainable_variables
        self._shapes = [tuple(v.shape) for v in self._variables]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        self._batch, self._compiled = batch, tf.function(self._loss)

    def weights(self) -> Any:
        """Return the weights, float64."""
        return np.concatenate([np.asarray(v, "float64").ravel() for v in self._variables])

    def assign(self, weights: Any) -> None:
        """Give the model these weights."""
        for variable, shape, part in zip(self._variables, self._shapes, np.split(weights, self._ends), strict=False):
            variable.assign(part.reshape(shape).astype("float32"))

    def evaluate(self, weights: Any) -> tuple[float, Any]:
        """Return the loss and its gradient, float64."""
        self.assign(weights)
        loss, gradients = self._compiled(*self._batch)
        return float(loss), np.concatenate([np.asarray(g, "float64").ravel() for g in gradients])

    def _loss(self, x: Any, y: Any) -> tuple[Any, Any]:
        variables = [v.value for v in self._variables]
        with tf.GradientTape() as tape:
            loss = self._model.compute_loss(x, y, self._model(x, training=True), None, training=True)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]
