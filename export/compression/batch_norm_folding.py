"""Batch normalization out of a network: into the layer before it, or a layer of scale and offset by itself.

In inference it is y = x * s + t with s = gamma / sqrt(variance + epsilon) and t = beta - mean * s (Ioffe and Szegedy
2015, arXiv:1502.03167, algorithm 2), which is linear: quantized together with a convolution it costs no rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from export.core.keras_graph import Call, Change, calls, like, readers, rebuild
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import keras, np
from zoo.layers.lazy import layers

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np


def fold(network: _keras.Model) -> _keras.Model:
    """Return a network of the same function in inference that has no batch normalization.

    Where the only reader of a convolution or dense layer without activation is a batch normalization, its scale and
    offset go into the layer's weights. One that stands alone becomes a 1x1 depthwise convolution of the same name on
    maps (n, h, w, c), which every quantizer has int8 kernels for, and a rescaling by constants elsewhere.

    Args:
        network: a functional network; it stays as it is.

    Raises:
        UnsupportedExport: a batch normalization is over another axis than the last, or used more than once.
    """
    changes: dict[str, Change] = {}
    graph, read = calls(network), readers(network)
    makers = {id(tensor): call for call in graph for tensor in call.outputs}
    uses = [call.layer.name for call in graph]
    for call in graph:
        if not isinstance(call.layer, keras.layers.BatchNormalization):
            continue
        _check_norm(call, uses.count(call.layer.name))
        before = makers[id(call.inputs[0])]
        alone = len(read[id(call.inputs[0])]) == 1 and uses.count(before.layer.name) == 1
        if alone and before.layer.name not in changes and absorbs(before.layer):
            changes[before.layer.name] = merged(before.layer, *scale_and_offset(call.layer))
            changes[call.layer.name] = Change()
        else:
            changes[call.layer.name] = _standing(call)
    return rebuild(network, changes)


def _check_norm(call: Call, uses: int) -> None:
    """Raise UnsupportedExport for a batch normalization that is no scale of the last axis."""
    rank = len(call.inputs[0].shape)
    if call.layer.axis not in (-1, rank - 1) or uses > 1:
        raise UnsupportedExport(
            "Batch normalization can be folded if it is over the last axis and used once. "
            f"Received: layer={call.layer.name}, axis={call.layer.axis}, uses={uses}"
        )


def absorbs(layer: Any) -> bool:
    """Tell whether a layer is linear and ends with its kernel and bias."""
    known = keras.layers
    kinds = (known.Conv1D, known.Conv2D, known.Conv3D, known.Dense, known.DepthwiseConv1D, known.DepthwiseConv2D)
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    return isinstance(layer, kinds) and linear and getattr(layer, "data_format", "channels_last") == "channels_last"


def scale_and_offset(norm: Any) -> tuple[Any, Any]:
    """Return s and t of a batch normalization in inference, y = x * s + t, as float64 (channels,)."""
    mean, variance = (np.asarray(v, "float64") for v in (norm.moving_mean, norm.moving_variance))
    scale = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, "float64")
    offset = -mean * scale
    return scale, offset + np.asarray(norm.beta, "float64") if norm.center else offset


def merged(layer: Any, scale: _np.ndarray, offset: _np.ndarray) -> Change:
    """Return a layer that `absorbs` with a scale and an offset of its outputs, float64 (channels,), in its weights."""
    kernel = np.asarray(layer.kernel, "float64")
    # A depthwise kernel is (..., channels, multiplier), and its outputs are counted in that order.
    depthwise = isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D))
    factor = scale.reshape(kernel.shape[-2:]) if depthwise else scale
    bias = np.asarray(layer.bias, "float64") * scale + offset if layer.use_bias else offset
    return Change(like(layer, use_bias=True), [(kernel * factor).astype("float32"), bias.astype("float32")])


def _standing(call: Call) -> Change:
    """Return a layer that does what the normalization does."""
    scale, offset = (v.astype("float32") for v in scale_and_offset(call.layer))
    options = {"name": call.layer.name, "dtype": call.layer.dtype_policy}
    if len(call.inputs[0].shape) == 4:
        return Change(layers.DepthwiseConv2D(1, **options), [scale.reshape(1, 1, -1, 1), offset])
    return Change(keras.layers.Rescaling(scale.tolist(), offset.tolist(), **options))
