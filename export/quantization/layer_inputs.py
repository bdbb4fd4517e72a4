"""The matrices of a layer with a kernel: its weights by group, and the values that they multiply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import numpy as _np

# Examples (positions of feature maps) that a kernel is learned on: as many for each of its inputs, and at least; and
# values of them all, for a depthwise kernel has other inputs for each channel.
ROWS, LEAST, VALUES = 2, 8192, 1 << 25


def is_supported(layer: Any) -> bool:
    """Return whether the kernel of a layer can be read as matrices: of dense and 2-D convolution layers."""
    kinds = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    plain = isinstance(layer, kinds) and not isinstance(layer, keras.layers.Conv2DTranspose)
    return plain and getattr(layer, "data_format", "channels_last") == "channels_last"


def is_depthwise(layer: Any) -> bool:
    """Return whether a layer convolves each channel separately."""
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def kernel_matrices(layer: Any) -> _np.ndarray:
    """Return the kernel as float64 (groups, inputs, channels)."""
    kernel = np.asarray(layer.kernel, "float64")
    if is_depthwise(layer):
        return kernel.reshape(-1, *kernel.shape[2:]).transpose(1, 0, 2)
    groups = getattr(layer, "groups", 1)
    return kernel.reshape(-1, groups, kernel.shape[-1] // groups).transpose(1, 0, 2)


def kernel_from_matrices(layer: Any, matrices: _np.ndarray) -> _np.ndarray:
    """Return matrices (groups, inputs, channels) as a kernel of the layer, float32."""
    return matrices.transpose(1, 0, 2).reshape(layer.kernel.shape).astype("float32")


def input_rows(layer: Any, inputs: _np.ndarray, seed: int = 0) -> _np.ndarray:
    """Return what the kernel multiplies, float32 (groups, examples, inputs), at seeded positions.

    Args:
        layer: a supported layer.
        inputs: its inputs; of a convolution (n, height, width, channels).
        seed: the same seed gives the same positions.
    """
    rng = np.random.default_rng(seed)
    if isinstance(layer, keras.layers.Dense):
        rows = inputs.reshape(-1, inputs.shape[-1])
        return rows[_choose(rng, len(rows), inputs.shape[-1], 1)][None]
    size, channels = layer.kernel_size, inputs.shape[-1]
    places, padded = _positions(layer, inputs)
    groups = channels if is_depthwise(layer) else layer.groups
    which = _choose(rng, len(places[0]), size[0] * size[1] * channels // groups, groups)
    chosen = [place[which] for place in places]
    taps = [
        padded[chosen[0], chosen[1] + y * layer.dilation_rate[0], chosen[2] + x * layer.dilation_rate[1]]
        for y in range(size[0])
        for x in range(size[1])
    ]
    rows = np.stack(taps, axis=1).reshape(len(chosen[0]), len(taps), groups, channels // groups)
    return rows.transpose(2, 0, 1, 3).reshape(groups, len(chosen[0]), -1)


def _choose(rng: Any, count: int, inputs: int, groups: int) -> Any:
    """Return which of `count` positions are used."""
    most = min(max(LEAST, ROWS * inputs), max(ROWS * inputs, VALUES // (inputs * groups)))
    return slice(None) if count <= most else rng.choice(count, most, replace=False)


def _positions(layer: Any, inputs: _np.ndarray) -> tuple[tuple[Any, Any, Any], _np.ndarray]:
    """Return example, row and column of each output's first input, and the padded inputs."""
    pads, starts = [(0, 0)], []
    for axis in (0, 1):
        length, stride = inputs.shape[1 + axis], layer.strides[axis]
        extent = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1
        count = -(-length // stride) if layer.padding == "same" else (length - extent) // stride + 1
        missing = max(0, (count - 1) * stride + extent - length) if layer.padding == "same" else 0
        pads.append((missing // 2, missing - missing // 2))
        starts.append(np.arange(count) * stride)
    grid = np.meshgrid(np.arange(len(inputs)), *starts, indexing="ij")
    padded = np.pad(inputs, [*pads, (0, 0)]) if any(map(sum, pads)) else inputs
    return tuple(g.ravel() for g in grid), padded
