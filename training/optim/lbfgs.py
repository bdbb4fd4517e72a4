"""L-BFGS (Liu and Nocedal 1989), SciPy's, on the loss of all training data at once: for small networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from training.augment.augment import is_active
from training.data.pipeline.pipeline import Pipeline
from training.distributed.device import Device
from training.optim.ema import MEASURED
from training.recipe.config import OptimizerConfig
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np, tf

NAME = "lbfgs"
# Options of optimizers that take one batch after the other.
STEPWISE = (
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
MEMORY = 10  # pairs of steps and changes of the gradient that are remembered
# What SciPy says of its state: nothing yet, the loss is wanted, an iteration is over.
BEGIN, EVALUATE, ITERATED = 0, 3, 1
# SciPy's own: a relative fall of the loss and a gradient that are none any more, and trials of a line search.
FALL, FLAT, TRIALS = 2.2204460492503131e-09, 1e-5, 20
PASSES = 100  # over the data an iteration, at most, on average


@dataclasses.dataclass(frozen=True)
class Step:
    """Where an iteration has come.

    Args:
        loss: of all training data.
        passes: over all training data, forth and back, since `minimize` was called.
    """

    loss: float
    passes: int


def is_asked(recipe: Recipe) -> bool:
    """Tell whether a recipe asks for L-BFGS."""
    return recipe.optimizer.name.lower() == NAME


def in_float32(recipe: Recipe) -> Recipe:
    """Return a recipe in the precision that L-BFGS needs, where that is left to us."""
    return dataclasses.replace(recipe, precision="float32") if recipe.precision == "auto" else recipe


def check_lbfgs(recipe: Recipe, pipeline: Pipeline, device: Device, model: Any) -> None:
    """Raise BadOption for what makes the loss other than a function of the weights alone."""
    count, plain = pipeline.dataset.splits["train"].count, OptimizerConfig()
    random = [layer.name for layer in model.layers if getattr(layer, "seed_generator", None) is not None]
    averaged = [v.path for v in model.non_trainable_variables if v.name in MEASURED]
    given = [key for key in STEPWISE if getattr(recipe.optimizer, key) != getattr(plain, key)]
    reasons = {
        f"data.batch_size={recipe.data.batch_size}, of {count} training examples: it takes all at once. "
        f"Set data.batch_size={count}": pipeline.steps_per_epoch > 1,
        "data.augment: its loss would change from one look to the next": is_active(recipe.data.augment),
        f"{''.join(random[:1])}: what drops at random changes the loss from one look to the next": bool(random),
        f"{''.join(averaged[:1])}: batch normalization moves its averages at each trial of a step": bool(averaged),
        f"optimizer.{''.join(given[:1])}: it takes no steps of that kind": bool(given),
        f"precision={device.precision}: its line search needs float32": device.precision != "float32",
        f"replicas={device.replicas}: it computes in one place": device.replicas > 1,
        f"regularize.l1={recipe.regularize.l1}: it needs a smooth loss; take l2": bool(recipe.regularize.l1),
        "regularize.spectral_norm: it knows no constraints": recipe.regularize.spectral_norm,
    }
    for reason, holds in reasons.items():
        if holds:
            raise BadOption(f"optimizer.name={NAME} cannot go with this. Received: {reason}.")


class Memory:
    """What L-BFGS knows between two iterations, as variables for checkpoints, which a model keeps but does not own."""

    def __init__(self, size: int) -> None:
        self._variables = [
            keras.Variable(array, dtype=str(array.dtype), trainable=False, name=name)
            for name, array in _start(size).items()
        ]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._variables)


def remember(model: Any) -> None:
    """Give a model a place for what L-BFGS knows between two iterations, which its checkpoints hold."""
    model.search = Memory(sum(int(np.prod(v.shape)) for v in model.trainable_variables))


def _start(size: int) -> dict[str, Any]:
    """Return the arrays that SciPy's L-BFGS-B works on, by its own names, before the first iteration."""
    m, lengths = MEMORY, {"task": 2, "ln_task": 2, "lsave": 4, "isave": 44, "iwa": 3 * size}
    reals = {"x": (size,), "f": (), "g": (size,), "dsave": (29,), "wa": (2 * m * size + 5 * size + 11 * m * m + 8 * m,)}
    return {name: np.zeros(shape) for name, shape in reals.items()} | {
        name: np.zeros(length, "int32") for name, length in lengths.items()
    }


def minimize(model: Any, batch: tuple[Any, Any], iterations: int, after: Callable[[Step], bool]) -> str:
    """Move the weights of a compiled model to less loss, from where the last call, or a checkpoint, left it.

    Args:
        model: a compiled model that was given to `remember`.
        batch: (x, y) of all training examples.
        iterations: at most so many.
        after: called after each with the weights in place; ends it by returning True.

    Returns:
        "epochs" if there were so many iterations, "patience" if `after` ended it, "converged" if there was no more to
        gain.
    """
    point, done, passes = _Point(model, batch), 0, 0
    state = {variable.name: np.asarray(variable).copy() for variable in model.search}
    if state["task"][0] == BEGIN:
        state["x"] = point.weights()
    while passes <= PASSES * iterations:
        _advance(state)
        if state["task"][0] == EVALUATE:
            passes += 1
            state["f"], state["g"] = point.look(state["x"])
        elif state["task"][0] == ITERATED:
            done += 1
            point.move(state["x"])
            for variable in model.search:
                variable.assign(state[variable.name])
            if after(Step(float(state["f"]), passes)):
                return "patience"
            if done == iterations:
                return "epochs"
        else:
            break
    point.move(state["x"])
    return "converged"


def _advance(state: dict[str, Any]) -> None:
    """Let SciPy go on to where it needs the loss at x, has ended an iteration, or is through.

    `scipy.optimize.minimize` is this call in a loop, and cannot be told what it knew before; SciPy 1.15 to 1.18 call it
    alike.
    """
    from scipy.optimize import _lbfgsb

    s, x = state, state["x"]
    free, none = np.zeros(x.size, "int32"), np.zeros(x.size)
    limits = (FALL / np.finfo("float64").eps, FLAT)
    work = (s["wa"], s["iwa"], s["task"], s["lsave"], s["isave"], s["dsave"])
    _lbfgsb.setulb(MEMORY, x, none, none, free, s["f"], s["g"], *limits, *work, TRIALS, s["ln_task"])


class _Point:
    """The weights of a model as one vector, and what the loss is there."""

    def __init__(self, model: Any, batch: tuple[Any, Any]) -> None:
        self._model, self._variables = model, model.trainable_variables
        self._shapes = [tuple(v.shape) for v in self._variables]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        self._batch, self._compiled = batch, tf.function(self._loss)

    def weights(self) -> Any:
        """Return the weights, float64."""
        return np.concatenate([np.asarray(v, "float64").ravel() for v in self._variables])

    def move(self, weights: Any) -> None:
        """Give the model these weights."""
        for variable, shape, part in zip(self._variables, self._shapes, np.split(weights, self._ends), strict=False):
            variable.assign(part.reshape(shape).astype("float32"))

    def look(self, weights: Any) -> tuple[float, Any]:
        """Return the loss and its gradient, float64."""
        self.move(weights)
        loss, gradients = self._compiled(*self._batch)
        return float(loss), np.concatenate([np.asarray(g, "float64").ravel() for g in gradients])

    def _loss(self, x: Any, y: Any) -> tuple[Any, Any]:
        variables = [v.value for v in self._variables]
        with tf.GradientTape() as tape:
            loss = self._model.compute_loss(x, y, self._model(x, training=True), None, training=True)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]
