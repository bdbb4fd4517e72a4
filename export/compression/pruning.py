"""Magnitude pruning: its options, the kernels that it applies to, and the masks that it selects."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import layers_under
from zoo.common.errors import BadOption, UnsupportedExport
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

KERNELS = ("kernel", "pointwise_kernel")


@dataclasses.dataclass(frozen=True)
class Pruning:
    """The final zeros of the kernels, and the schedule that leads to them.

    A kernel of `size` weights ends with floor(sparsity * size + 1/2) zeros. With scope "global" the rule applies to all
    kernels together, with `block` to the blocks of each kernel.

    Args:
        sparsity: fraction of zeros, at least 0 and below 1; `pattern` overrides it.
        scope: "layer" for the same sparsity in each kernel, "global" to compare the magnitudes of all kernels.
        pattern: (n, m) to keep n of each m consecutive input channels, such as (2, 4); None for no pattern.
        block: (inputs, units) of the blocks of dense kernels that become zero together; None for single weights.
        skip: layers that stay dense, as names with the wildcards * and ?.
        ramp: fraction of the training after which the target is reached; the rest recovers accuracy.
        updates: number of mask updates in the ramp.
    """

    sparsity: float = 0.8
    scope: str = "layer"
    pattern: tuple[int, int] | None = None
    block: tuple[int, int] | None = None
    skip: tuple[str, ...] = ()
    ramp: float = 0.6
    updates: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise BadOption(f"sparsity must be at least 0 and below 1. Received: sparsity={self.sparsity}")
        if self.scope not in ("layer", "global"):
            raise BadOption(f"scope must be 'layer' or 'global'. Received: scope={self.scope!r}")
        if self.pattern and not (len(self.pattern) == 2 and 0 < self.pattern[0] < self.pattern[1]):
            raise BadOption(f"pattern must be (n, m) with 0 < n < m, such as (2, 4). Received: pattern={self.pattern}")
        if self.block and (len(self.block) != 2 or min(self.block) < 1):
            raise BadOption(f"block must be (inputs, units), each at least 1. Received: block={self.block}")
        if sum(map(bool, (self.pattern, self.block, self.scope == "global"))) > 1:
            raise BadOption(
                "pattern, block and scope='global' exclude each other. "
                f"Received: pattern={self.pattern}, block={self.block}, scope={self.scope!r}"
            )
        if not (0 < self.ramp <= 1 and self.updates >= 1):
            raise BadOption(
                "ramp must be above 0 and at most 1, updates at least 1. "
                f"Received: ramp={self.ramp}, updates={self.updates}"
            )


def prunable_kernels(model: _keras.Model, pruning: Pruning) -> list[Any]:
    """Return the kernels to prune: those of convolutions and dense layers, also inside attention.

    Depthwise kernels, embeddings, biases and normalization stay dense.

    Raises:
        BadOption: a kernel does not fit the pattern, no kernel is left, or a name in `skip` matches no layer.
        UnsupportedExport: Keras runs on JAX, which compiles the masks in as constants.
    """
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedExport(
            f"Pruning needs Keras on TensorFlow. Received: backend={keras.backend.backend()!r}. "
            "Run again with KERAS_BACKEND=tensorflow."
        )
    layers = list(layers_under(model))
    for pattern in pruning.skip:
        if not fnmatch.filter([layer.name for layer in layers], pattern):
            raise BadOption(f"skip must name layers of {model.name}. Received: skip={pattern!r}")
    kernels = [v for layer in layers if not _is_skipped(layer, pruning) for v in layer.weights if v.name in KERNELS]
    unique = list({id(v): v for v in kernels}.values())
    if not unique:
        raise BadOption(f"{model.name} has no kernel to prune. Received: skip={pruning.skip}")
    for variable in unique:
        _check_pattern(variable, pruning)
    return unique


def _is_skipped(layer: Any, pruning: Pruning) -> bool:
    depthwise = isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D))
    return depthwise or any(fnmatch.fnmatch(layer.name, pattern) for pattern in pruning.skip)


def _check_pattern(variable: Any, pruning: Pruning) -> None:
    """Raise BadOption for a kernel that does not fit the pattern or the blocks."""
    shape = tuple(variable.shape)
    layer = variable.path.split("/")[-2]
    if pruning.pattern and shape[-2] % pruning.pattern[1]:
        raise BadOption(
            f"{pruning.pattern[0]}:{pruning.pattern[1]} needs a multiple of {pruning.pattern[1]} input channels. "
            f"Received: {variable.path} with {shape[-2]}. Leave it dense: skip={layer}"
        )
    if pruning.block and len(shape) != 2:
        raise BadOption(
            "block applies to dense kernels only, because LiteRT has no other block-sparse kernels. "
            f"Received: {variable.path} of shape {shape}. Use sparsity without block, or skip={layer}"
        )
    if pruning.block and (shape[0] % pruning.block[0] or shape[1] % pruning.block[1]):
        raise BadOption(
            f"Blocks of {pruning.block} must divide the kernel. Received: {variable.path} of shape {shape}. "
            f"Use other blocks, or skip={layer}"
        )


def magnitude_masks(arrays: Sequence[_np.ndarray], pruning: Pruning, sparsity: float) -> list[_np.ndarray]:
    """Return a mask for each kernel, float32, 0 for the weights of smallest magnitude.

    Args:
        arrays: the kernels.
        pruning: scope, pattern and blocks.
        sparsity: current fraction of zeros; a pattern ignores it.
    """
    if pruning.pattern:
        return [_pattern_mask(abs(array), *pruning.pattern) for array in arrays]
    if pruning.block:
        return [_block_mask(abs(array), pruning.block, sparsity) for array in arrays]
    if pruning.scope == "layer":
        return [_weight_mask(abs(array), sparsity) for array in arrays]
    flat = _weight_mask(np.concatenate([abs(array).ravel() for array in arrays]), sparsity)
    parts = np.split(flat, np.cumsum([array.size for array in arrays])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


def _weight_mask(magnitude: Any, sparsity: float) -> Any:
    """Return a mask without the floor(sparsity * size + 1/2) smallest weights."""
    mask, count = np.ones(magnitude.size, "float32"), int(sparsity * magnitude.size + 0.5)
    if count:
        mask[np.argpartition(magnitude.ravel(), count - 1)[:count]] = 0
    return mask.reshape(magnitude.shape)


def _pattern_mask(magnitude: Any, n: int, m: int) -> Any:
    """Return a mask with the n largest of each m consecutive input channels, the axis before the last."""
    turned = np.moveaxis(magnitude, -2, -1)
    mask = np.ones(turned.shape, "float32").reshape(-1, m)
    np.put_along_axis(mask, np.argsort(turned.reshape(-1, m), axis=1, kind="stable")[:, : m - n], 0, axis=1)
    return np.moveaxis(mask.reshape(turned.shape), -1, -2)


def _block_mask(magnitude: Any, block: tuple[int, int], sparsity: float) -> Any:
    """Return a mask without the blocks of smallest mean magnitude."""
    rows, columns = magnitude.shape[0] // block[0], magnitude.shape[1] // block[1]
    means = magnitude.reshape(rows, block[0], columns, block[1]).mean((1, 3))
    return np.kron(_weight_mask(means, sparsity), np.ones(block, "float32")).astype("float32")
