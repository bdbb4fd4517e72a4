"""The switch of fused kernels: operations that compute what Keras' own do, in fewer passes over memory."""

from __future__ import annotations

import os

SWITCH = "ZOO_FUSED"


def use_fused() -> bool:
    """Return whether fused optimizers and bfloat16 kernels replace Keras' own; ZOO_FUSED=0 turns all of them off."""
    return os.environ.get(SWITCH, "1") != "0"
