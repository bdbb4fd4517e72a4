"""Scale folding: channel scales into the kernels of neighboring layers.

Converters fold constant scales into kernels channel by channel, after which clustered weights no longer share a few
values. Folding before clustering leaves no scale to fold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from export.compression.batch_norm_folding import can_absorb_scale, scaled_layer
from export.core.keras_graph import Call, Change, calls, like, readers, rebuild
from zoo.common.lazy import keras, np
from zoo.layers.lazy import layers, tabular

if TYPE_CHECKING:
    import keras as _keras


def fold_scales(model: _keras.Model) -> _keras.Model:
    """Return a model that computes the same in inference, without scales that a neighboring layer can absorb.

    A layer scale is folded into the convolution or dense layer before it; the scale and offset of a layer
    normalization, and the scale of features, into the dense layers after it if nothing else reads it.

    Args:
        model: a functional model; it is not changed.
    """
    graph = calls(model)
    uses = [call.layer.name for call in graph]
    once = [call for call in graph if uses.count(call.layer.name) == 1]
    scaled = dict(_fold_layer_scales(model, once))
    # One change per layer: a layer may have a scale after it and a normalization before it.
    model = rebuild(model, scaled) if scaled else model
    shifted = dict(_fold_into_next(model, {call.layer.name for call in once}))
    return rebuild(model, shifted) if shifted else model


def _fold_layer_scales(model: Any, once: list[Call]) -> Iterator[tuple[str, Change]]:
    """Yield the changes of layer scales and of the layers before them."""
    read = readers(model)
    makers = {id(tensor): call for call in once for tensor in call.outputs}
    for call in once:
        before = makers.get(id(call.inputs[0])) if isinstance(call.layer, layers.LayerScale) else None
        if before and can_absorb_scale(before.layer) and len(read[id(call.inputs[0])]) == 1:
            scale = np.asarray(call.layer.gamma, "float64")
            yield before.layer.name, scaled_layer(before.layer, scale, np.zeros_like(scale))
            yield call.layer.name, Change()


def _fold_into_next(model: Any, once: set[str]) -> Iterator[tuple[str, Change]]:
    """Yield the changes of layer normalizations, of scales of features, and of the dense layers after them."""
    read = readers(model)
    for call in calls(model):
        layer = call.layer
        absorbed = _absorbed(layer) if layer.name in once else None
        if absorbed is None:
            continue
        following = list(_next_calls(call, read))
        if all(c and isinstance(c.layer, keras.layers.Dense) and c.layer.name in once for c in following):
            scale, offset, change = absorbed
            for dense in {c.layer.name: c.layer for c in following}.values():
                yield dense.name, _folded_dense(dense, scale, offset)
            yield layer.name, change


def _absorbed(layer: Any) -> tuple[Any, Any, Change] | None:
    """Return (scale, offset, change): what the layers after one absorb of it, and how it is changed then."""
    if isinstance(layer, keras.layers.LayerNormalization):
        scale = np.asarray(layer.gamma, "float64") if layer.scale else None
        offset = np.asarray(layer.beta, "float64") if layer.center else None
        return scale, offset, Change(like(layer, scale=False, center=False), [])
    if isinstance(layer, tabular.FeatureScale):
        return np.asarray(layer.factors, "float64"), None, Change()
    return None


def _next_calls(call: Call, read: dict[int, list[Call]]) -> Iterator[Call | None]:
    """Yield the calls that read a call's output, through dropout; None for an output of the model."""
    for reader in read[id(call.outputs[0])]:
        if reader and isinstance(reader.layer, keras.layers.Dropout):
            yield from _next_calls(reader, read)
        else:
            yield reader


def _folded_dense(dense: Any, scale: Any, offset: Any) -> Change:
    """Return the change of a dense layer that absorbs the scale and offset of its inputs, None without one."""
    kernel = np.asarray(dense.kernel, "float64")
    bias = np.asarray(dense.bias, "float64") if dense.use_bias else np.zeros(kernel.shape[-1])
    if offset is not None:
        bias = bias + offset @ kernel
    if scale is not None:
        kernel = kernel * scale[:, None]
    biased = dense.use_bias or offset is not None
    weights = [kernel, bias] if biased else [kernel]
    return Change(like(dense, use_bias=biased), [weight.astype("float32") for weight in weights])
