"""Rebuild the model of a run in float32, and check that it computes the function in the run's `model.keras`.

Rounding proves nothing: a model with channels that are almost constant turns the rounding of bfloat16, or another order
of float32 sums, into a tenth of its largest logit. In float64 the same function differs by 1e-7 at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from export.source.backend_parity import require_same_logits
from training.data.pipeline.pipeline import Pipeline
from training.learning.build import build_model
from training.learning.evaluation import MODEL_REFUSAL, load_model
from training.runs.run import Run
from zoo.build import POLICIES, dtype_policy
from zoo.common.errors import ParityError
from zoo.common.lazy import keras, np
from zoo.reading.keras_models import fill_weights

if TYPE_CHECKING:
    import keras as _keras

# Largest error as a fraction of the largest logit: of two float32 models, else of both in float64. Heads compute in
# float32 in any case.
FLOAT32_TOLERANCE, FLOAT64_TOLERANCE = 1e-5, 1e-6
EXAMPLES = 2  # in float64, which has no fast kernels


def rebuild(run: Run, pipeline: Pipeline) -> _keras.Model:
    """Build the model of a finished run in float32 with its trained weights.

    Args:
        run: a finished run.
        pipeline: its data.

    Raises:
        ParityError: it computes another function than the run's `model.keras`.
    """
    with dtype_policy("float32"):
        model = build_model(run.recipe, pipeline)
    fill_weights(model, run.model_path, MODEL_REFUSAL)
    require_same_logits(run, model)
    x, _ = pipeline.first_batch("validation")
    trained = load_model(run)
    error = relative_error(model, trained, x)
    if error <= FLOAT32_TOLERANCE:
        return model
    exact = relative_error(in_precision(model, "float64"), in_precision(trained, "float64"), _first(x, EXAMPLES))
    if not exact <= FLOAT64_TOLERANCE:
        raise ParityError(
            "The model built from the recipe must compute the function in model.keras. "
            f"Received: run={str(run.path)!r}, max error {exact:.2g} of the largest logit in float64 "
            f"(tolerance {FLOAT64_TOLERANCE:g}). {_versions(run)} "
            "Install the versions that the run was trained with, or train again."
        )
    return model


def relative_error(model: _keras.Model, other: _keras.Model, x: Any) -> float:
    """Return the largest difference of two models' outputs as a fraction of the largest one of the same output."""
    pairs = zip(*(keras.tree.flatten(m(x, training=False)) for m in (model, other)), strict=True)
    arrays = [tuple(np.asarray(values, "float64") for values in pair) for pair in pairs]
    return max(float(np.abs(found - known).max() / (np.abs(known).max() + 1e-12)) for found, known in arrays)


def in_precision(model: _keras.Model, policy: str) -> _keras.Model:
    """Return a copy of a model with its weights that computes in another precision."""
    config = _with_policy(model.get_config(), policy)
    cast = type(model).from_config(config)
    cast.set_weights(model.get_weights())
    return cast


def _with_policy(config: Any, policy: str) -> Any:
    """Replace the dtype policies in the config of a model; inputs keep their dtype."""
    if isinstance(config, list):
        return [_with_policy(value, policy) for value in config]
    if not isinstance(config, Mapping):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": policy}}
    found = {key: _with_policy(value, policy) for key, value in config.items()}
    if "class_name" not in found or found["class_name"] == "InputLayer":
        return found
    inner = found.get("config")
    if isinstance(inner, Mapping) and inner.get("dtype") in POLICIES:
        found["config"] = {**inner, "dtype": policy}
    return found


def _first(x: Any, count: int) -> Any:
    """Return the first examples of a batch."""
    return keras.tree.map_structure(lambda values: values[:count], x)


def _versions(run: Run) -> str:
    """Return the versions that differ from those of the run."""
    from training.runs.environment import environment

    then, now = run.environment().get("versions", {}), environment()["versions"]
    changed = [f"{name} {then[name]} then, {now.get(name)} now" for name in then if then[name] != now.get(name)]
    return f"Versions: {', '.join(changed)}." if changed else "No version has changed since training."
