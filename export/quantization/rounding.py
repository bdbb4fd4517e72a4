"""Learned rounding: choose the code of each weight so that the outputs of its layer change least.

Rounding to nearest minimizes the error of each weight; the error of an output is a sum over weights, in which errors
can cancel (Nagel et al. 2020, arXiv:2004.10568). For one layer the squared error is a quadratic form in the change of
the kernel, with the covariance of the inputs as its matrix. It is minimized weight by weight, and the error of each is
compensated by the weights that follow (Frantar et al. 2022, arXiv:2210.17323); then each code moves as long as that
helps. Neither labels nor gradients are needed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from export.quantization.grid import LARGEST_CODE, round_to_nearest, scales_of
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# Added to the diagonal as a fraction of its mean: inputs outside the calibration set must not get arbitrary weights.
DAMPING = 0.01
BLOCK = 128  # weights that are rounded before the others are corrected
SWEEPS, LARGEST_SWEPT = 2, 1200  # passes over the codes, for layers with at most as many inputs
# Inputs of a kernel whose rounding is learned; larger ones, such as the first dense layer of VGG-16, are rounded to
# nearest: a covariance of 25,088 inputs has 5 GB.
LARGEST_LEARNED = 4608


@dataclasses.dataclass(frozen=True)
class Moments:
    """The inputs of a layer, before quantization and in the model whose earlier layers are quantized.

    Args:
        means: of the inputs before, float64 (groups, inputs).
        quantized_means: of the quantized ones.
        covariance: of the quantized inputs, (groups, inputs, inputs); empty if there are too many inputs.
        cross_covariance: of the quantized inputs with those before.
    """

    means: _np.ndarray
    quantized_means: _np.ndarray
    covariance: _np.ndarray
    cross_covariance: _np.ndarray

    @classmethod
    def of(cls, inputs: _np.ndarray, quantized: _np.ndarray) -> Moments:
        """Return the moments of examples (groups, examples, inputs)."""
        means, others = (x.mean(axis=1, dtype="float64") for x in (inputs, quantized))
        if inputs.shape[-1] > LARGEST_LEARNED:
            return cls(means, others, np.empty(0), np.empty(0))
        centered, other = inputs - means[:, None].astype("float32"), quantized - others[:, None].astype("float32")
        turned = np.swapaxes(other, 1, 2) / np.float32(inputs.shape[1])
        return cls(means, others, (turned @ other).astype("float64"), (turned @ centered).astype("float64"))

    def damped(self) -> _np.ndarray:
        """Return the covariance with a positive diagonal."""
        size = self.covariance.shape[-1]
        mean = np.trace(self.covariance, axis1=1, axis2=2)[:, None, None] / size
        return self.covariance + (DAMPING * mean + 1e-12) * np.eye(size)


def learn_rounding(kernel: _np.ndarray, moments: Moments) -> _np.ndarray:
    """Return a kernel on the int8 grid of `export.quantization.grid` that changes the outputs of its layer least.

    Args:
        kernel: float64 (groups, inputs, channels).
        moments: of the layer's inputs.

    Returns:
        The kernel, whose error in each channel is at most the one of rounding to nearest.
    """
    scales = scales_of(kernel)
    nearest = round_to_nearest(kernel, scales)
    if not moments.covariance.size:
        return nearest * scales
    matrix = moments.damped()
    added = matrix - moments.covariance
    target = np.linalg.solve(matrix, (moments.cross_covariance + added) @ kernel)
    # The scale of a channel is read from its largest weight, which must stay; so must the zeros of a pruned kernel.
    fixed = (np.abs(nearest) == LARGEST_CODE) | (kernel == 0)
    codes = _round_in_order(target, scales, matrix, np.where(fixed, nearest, np.nan))
    if kernel.shape[1] <= LARGEST_SWEPT:
        codes = _sweep(codes, target, scales, matrix, fixed)
    better = layer_error(codes * scales, target, matrix) <= layer_error(nearest * scales, target, matrix)
    return np.where(better[:, None], codes, nearest) * scales


def layer_error(kernel: _np.ndarray, target: _np.ndarray, matrix: _np.ndarray) -> _np.ndarray:
    """Return the squared error of a layer's outputs, (groups, channels), if `kernel` replaces `target`."""
    change = kernel - target
    return np.sum(change * (matrix @ change), axis=1)


def _round_in_order(target: _np.ndarray, scales: _np.ndarray, matrix: _np.ndarray, fixed: _np.ndarray) -> _np.ndarray:
    """Round one input after another, those of largest variance first; later ones compensate the error."""
    order = np.argsort(-np.diagonal(matrix, axis1=1, axis2=2).mean(axis=0))
    back = np.argsort(order)
    weights, fixed = target[:, order].copy(), fixed[:, order]
    inverse = np.linalg.inv(matrix[:, order][:, :, order])
    upper = np.swapaxes(np.linalg.cholesky((inverse + np.swapaxes(inverse, 1, 2)) / 2), 1, 2)
    codes = np.empty_like(weights)
    for first in range(0, weights.shape[1], BLOCK):
        last = min(first + BLOCK, weights.shape[1])
        errors = np.empty_like(weights[:, first:last])
        for i in range(first, last):
            nearest = round_to_nearest(weights[:, i : i + 1], scales)[:, 0]
            codes[:, i] = np.where(np.isnan(fixed[:, i]), nearest, fixed[:, i])
            error = (weights[:, i] - codes[:, i] * scales[:, 0]) / upper[:, i, i, None]
            weights[:, i + 1 : last] -= upper[:, i, i + 1 : last, None] * error[:, None]
            errors[:, i - first] = error
        weights[:, last:] -= np.swapaxes(upper[:, first:last, last:], 1, 2) @ errors
    return codes[:, back]


def _sweep(
    codes: _np.ndarray, target: _np.ndarray, scales: _np.ndarray, matrix: _np.ndarray, fixed: _np.ndarray
) -> _np.ndarray:
    """Move each code to where the error is least if the others stay."""
    codes, gradient = codes.copy(), matrix @ (codes * scales - target)
    for _ in range(SWEEPS):
        before = codes.copy()
        for first in range(0, codes.shape[1], BLOCK):
            block = slice(first, first + BLOCK)
            start, local, inner = codes[:, block].copy(), gradient[:, block].copy(), matrix[:, block, block]
            for i in range(start.shape[1]):
                place = first + i
                best = codes[:, place] - local[:, i] / (inner[:, i, i, None] * scales[:, 0])
                best = np.clip(np.rint(best), -LARGEST_CODE, LARGEST_CODE)
                change = np.where(fixed[:, place], 0.0, best - codes[:, place])
                codes[:, place] += change
                local += inner[:, :, i, None] * (change * scales[:, 0])[:, None]
            gradient += matrix[:, :, block] @ ((codes[:, block] - start) * scales)
        if np.array_equal(codes, before):
            break
    return codes
