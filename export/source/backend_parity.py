"""A network that was trained on another backend of Keras: its rebuild on TensorFlow must say what it said there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.runs.run import Run
from zoo.common.errors import ParityError
from zoo.common.lazy import np

if TYPE_CHECKING:
    import keras as _keras

# Of the largest logit, in float32.
TOLERANCE = 1e-4


def require_same_logits(run: Run, network: _keras.Model) -> None:
    """Compare a network with the logits that a run left in logits.npz, if it left any.

    Args:
        run: a finished run.
        network: its rebuild in float32, with the trained weights.

    Raises:
        ParityError: they differ.
    """
    if not run.logits_path.is_file():
        return
    with np.load(run.logits_path, allow_pickle=False) as file:
        inputs, logits = file["inputs"], file["logits"]
    found = np.asarray(network(inputs, training=False), "float32")
    each = np.abs(found - logits).reshape(len(logits), -1).max(axis=1) / (np.abs(logits).max() + 1e-12)
    if not each.max() <= TOLERANCE:
        backend = run.environment().get("backend")
        raise ParityError(
            f"The float32 rebuild of {run.path} on TensorFlow differs from the network trained on {backend} by "
            f"{each.max():.2g} of the largest logit (mean {each.mean():.2g}, {len(logits)} examples); {TOLERANCE:g} is "
            "allowed. The family's code or model.keras has changed since training."
        )
