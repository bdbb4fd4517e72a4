"""The grid that every runtime quantizes kernels to: symmetric int8 with one scale for each output channel.

LiteRT Quantizer, ONNX Runtime's quantizer and NNCF all take the scale from the largest magnitude of a channel, which
becomes 127. A kernel that is on this grid is quantized without error by each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# 7 bits, for processors whose 8-bit products saturate, have the largest code 63 or 64; see `reduce_range`.
LARGEST_CODE = 127


def scales_of(kernel: _np.ndarray) -> _np.ndarray:
    """Return the scale of each output channel, float64 (groups, 1, channels).

    Args:
        kernel: weights as matrices (groups, inputs, channels).
    """
    largest = np.abs(kernel).max(axis=1, keepdims=True)
    return np.where(largest > 0, largest, 1.0) / LARGEST_CODE


def round_to_nearest(kernel: _np.ndarray, scales: _np.ndarray) -> _np.ndarray:
    """Return the code of each weight, whole numbers from -127 to 127 as float64, in the shape of `kernel`."""
    return np.clip(np.rint(kernel / scales), -LARGEST_CODE, LARGEST_CODE)
