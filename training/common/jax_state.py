"""The state of Keras' JAX trainer, which is outside of the variables during an epoch."""

from __future__ import annotations

from typing import Any


def sync_state(model: Any) -> None:
    """Write the state after the last step to the variables of a model, its optimizer and its metrics.

    Call it before they are read between steps: Keras' JAX trainer empties variables while it trains, and an empty
    variable reads as freshly initialized. Other backends do not need it.
    """
    sync = getattr(model, "jax_state_sync", None)
    if sync:
        sync()
