"""Where the state of a training lies under JAX: outside the variables, from the first step of an epoch to its last."""

from __future__ import annotations

from typing import Any


def sync_state(model: Any) -> None:
    """Give the variables of a model, of its optimizer and of its metrics the values that its last step computed.

    To be called before they are read between steps. Keras' JAX trainer empties them while it trains, and one that is
    empty reads as freshly initialized; other backends always keep the values in the variables.
    """
    sync = getattr(model, "jax_state_sync", None)
    if sync:
        sync()
