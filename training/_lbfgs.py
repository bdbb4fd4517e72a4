"""L-BFGS (Liu and Nocedal 1989), SciPy's, on the loss of all training data at once: for small networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from training._augment import is_active
from training._average import MEASURED
from training._configs import OptimizerConfig
from training._pipeline import Pipeline
from training._recipe import Recipe
from training._strategy import Device
from zoo._errors import BadOption
from zoo._lazy import np, tf

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


def minimize(model: Any, batch: tuple[Any, Any], iterations: int, after: Callable[[Step], bool]) -> str:
    """Move the weights of a compiled model to less loss.

    What is remembered of earlier steps begins empty, after a resume too.

    Args:
        model: a compiled model.
        batch: (x, y) of all training examples.
        iterations: at most so many.
        after: called after each with the weights in place; ends it by returning True.

    Returns:
        "epochs" if there were so many iterations, "patience" if `after` ended it, "converged" if there was no more to
        gain.
    """
    from scipy.optimize import minimize as search

    point, passes, ended = _Point(model, batch), 0, []

    def value(weights: Any) -> tuple[float, Any]:
        nonlocal passes
        passes += 1
        return point.look(weights)

    def callback(intermediate_result: Any) -> None:
        point.move(intermediate_result.x)
        if after(Step(float(intermediate_result.fun), passes)):
            ended.append("patience")
            raise StopIteration

    options = {"maxiter": iterations, "maxfun": 100 * iterations, "maxcor": MEMORY}
    found = search(value, point.weights(), jac=True, method="L-BFGS-B", callback=callback, options=options)
    point.move(found.x)
    return ended[0] if ended else "epochs" if found.nit >= iterations else "converged"


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
