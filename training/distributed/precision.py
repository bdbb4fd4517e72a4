"""Choose the precision of training for `precision=auto`: the fastest that trains as float32 does."""

from __future__ import annotations

from typing import Any

from zoo.common.lazy import tf
from zoo.common.processor import has_bfloat16

# Smallest compute capabilities of GPUs that multiply bfloat16, and float16, in hardware.
AMPERE, VOLTA = (8, 0), (7, 0)


def choose_precision(requested: str, gpus: list[Any], tpu: bool = False) -> str:
    """Return a Keras dtype policy; "auto" selects the fastest on this machine."""
    if requested != "auto":
        return requested
    if tpu:
        return "mixed_bfloat16"
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= AMPERE else "mixed_float16" if capability >= VOLTA else "float32"
    return "mixed_bfloat16" if has_bfloat16() else "float32"
