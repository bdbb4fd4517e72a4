"""Batch-norm folding: into the layer before it, or into a layer of scale and offset.

In inference batch normalization is y = x * s + t with s = gamma / sqrt(variance + epsilon) and t = beta - mean * s
(Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2), which is linear: folded into a convolution it adds no rounding
when quantized.
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


def fold(model: _keras.Model) -> _keras.Model:
    """Return a model without batch normalization that computes the same in inference.

    If a batch normalization is the only reader of a convolution or dense layer without activation, its scale and offset
    are folded into the weights of that layer. A standalone one becomes a 1x1 depthwise convolution of the same name on
    maps (n, h, w, c), for which every quantizer has int8 kernels, and a rescaling by constants elsewhere.

    Args:
        model: a functional model; it is not changed.

    Raises:
        UnsupportedExport: a batch normalization has another axis than the last, or is called more than once.
    """
    changes: dict[str, Change] = {}
    graph, read = calls(model), readers(model)
    makers = {id(tensor): call for call in graph for tensor in call.outputs}
    uses = [call.layer.name for call in graph]
    for call in graph:
        if not isinstance(call.layer, keras.layers.BatchNormalization):
            continue
        _check_norm(call, uses.count(call.layer.name))
        before = makers[id(call.inputs[0])]
        alone = len(read[id(call.inputs[0])]) == 1 and uses.count(before.layer.name) == 1
        if alone and before.layer.name not in changes and can_absorb_scale(before.layer):
            changes[before.layer.name] = scaled_layer(before.layer, *scale_and_offset(call.layer))
            changes[call.layer.name] = Change()
        else:
            changes[call.layer.name] = _standalone(call)
    return rebuild(model, changes)


def _check_norm(call: Call, uses: int) -> None:
    """Raise UnsupportedExport for a batch normalization that cannot be folded."""
    rank = len(call.inputs[0].shape)
    if call.layer.axis not in (-1, rank - 1) or uses > 1:
        raise UnsupportedExport(
            "Expected batch normalization over the last axis that is called once. "
            f"Received: layer={call.layer.name}, axis={call.layer.axis}, uses={uses}"
        )


def can_absorb_scale(layer: Any) -> bool:
    """Return whether a scale and offset of a layer's outputs can be folded into its kernel and bias."""
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


def scaled_layer(layer: Any, scale: _np.ndarray, offset: _np.ndarray) -> Change:
    """Return the change that folds a scale and an offset, float64 (channels,), into the weights of a layer."""
    kernel = np.asarray(layer.kernel, "float64")
    # A depthwise kernel is (..., channels, multiplier), and its outputs are in that order.
    depthwise = isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D))
    factor = scale.reshape(kernel.shape[-2:]) if depthwise else scale
    bias = np.asarray(layer.bias, "float64") * scale + offset if layer.use_bias else offset
    return Change(like(layer, use_bias=True), [(kernel * factor).astype("float32"), bias.astype("float32")])


def _standalone(call: Call) -> Change:
    """Return the layer that replaces a standalone batch normalization."""
    scale, offset = (v.astype("float32") for v in scale_and_offset(call.layer))
    options = {"name": call.layer.name, "dtype": call.layer.dtype_policy}
    if len(call.inputs[0].shape) == 4:
        return Change(layers.DepthwiseConv2D(1, **options), [scale.reshape(1, 1, -1, 1), offset])
    return Change(keras.layers.Rescaling(scale.tolist(), offset.tolist(), **options))
