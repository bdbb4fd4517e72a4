"""Models that were trained on another Keras backend: the TensorFlow rebuild must give the same logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.runs.run import Run
from zoo.common.errors import ParityError, RunError
from zoo.common.lazy import np
from zoo.reading.arrays import read_npz
from zoo.reading.files import Refusal

if TYPE_CHECKING:
    import keras as _keras

# As a fraction of the largest logit, in float32.
TOLERANCE = 1e-4


def require_same_logits(run: Run, model: _keras.Model) -> None:
    """Compare a model with the logits that a run saved in logits.npz, if it has any.

    Args:
        run: a finished run.
        model: its rebuild in float32, with the trained weights.

    Raises:
        ParityError: the logits differ.
    """
    if not run.logits_path.is_file():
        return
    found = read_npz(run.logits_path, Refusal(advice="Restore the file, or train again."))
    missing = [name for name in ("inputs", "logits") if name not in found]
    if missing:
        raise RunError(f"Expected reference logits. Received: {run.logits_path} without {missing[0]}. Train again.")
    inputs, logits = found["inputs"], found["logits"]
    outputs = np.asarray(model(inputs, training=False), "float32")
    errors = np.abs(outputs - logits).reshape(len(logits), -1).max(axis=1) / (np.abs(logits).max() + 1e-12)
    if not errors.max() <= TOLERANCE:
        backend = run.environment().get("backend")
        raise ParityError(
            f"The float32 rebuild of {run.path} on TensorFlow differs from the model trained on {backend}: max error "
            f"{errors.max():.2g} of the largest logit (mean {errors.mean():.2g}, {len(logits)} examples, tolerance "
            f"{TOLERANCE:g}). The family's code or model.keras has changed since training. Train again."
        )
