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
from zoo.layers.lazy import layers

if TYPE_CHECKING:
    import keras as _keras


def fold_scales(model: _keras.Model) -> _keras.Model:
    """Return a model that computes the same in inference, without scales that a neighboring layer can absorb.

    A layer scale is folded into the convolution or dense layer before it; the scale and offset of a layer normalization
    into the dense layers after it if nothing else reads it.

    Args:
        model: a functional model; it is not changed.
    """
    graph = calls(model)
    uses = [call.layer.name for call in graph]
    once = [call for call in graph if uses.count(call.layer.name) == 1]
    scaled = dict(_fold_layer_scales(model, once))
    # One change per layer: a layer may have a scale after it and a normalization before it.
    model = rebuild(model, scaled) if scaled else model
    shifted = dict(_fold_layer_norms(model, {call.layer.name for call in once}))
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


def _fold_layer_norms(model: Any, once: set[str]) -> Iterator[tuple[str, Change]]:
    """Yield the changes of layer normalizations and of the dense layers after them."""
    read = readers(model)
    for call in calls(model):
        norm = call.layer
        if not isinstance(norm, keras.layers.LayerNormalization) or norm.name not in once:
            continue
        following = list(_next_calls(call, read))
        if all(c and isinstance(c.layer, keras.layers.Dense) and c.layer.name in once for c in following):
            for dense in {c.layer.name: c.layer for c in following}.values():
                yield dense.name, _folded_dense(dense, norm)
            yield norm.name, Change(like(norm, scale=False, center=False), [])


def _next_calls(call: Call, read: dict[int, list[Call]]) -> Iterator[Call | None]:
    """Yield the calls that read a call's output, through dropout; None for an output of the model."""
    for reader in read[id(call.outputs[0])]:
        if reader and isinstance(reader.layer, keras.layers.Dropout):
            yield from _next_calls(reader, read)
        else:
            yield reader


def _folded_dense(dense: Any, norm: Any) -> Change:
    """Return the change of a dense layer that absorbs the scale and offset of a normalization."""
    kernel = np.asarray(dense.kernel, "float64")
    bias = np.asarray(dense.bias, "float64") if dense.use_bias else np.zeros(kernel.shape[-1])
    if norm.center:
        bias = bias + np.asarray(norm.beta, "float64") @ kernel
    if norm.scale:
        kernel = kernel * np.asarray(norm.gamma, "float64")[:, None]
    return Change(like(dense, use_bias=True), [kernel.astype("float32"), bias.astype("float32")])
