"""Scales of channels out of a network, into the kernels beside them.

Converters multiply constants into kernels where they can, channel by channel, so that weights which shared a few values
would share them no longer. Done before, there is nothing left to multiply.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from export.compression.batch_norm_folding import absorbs, merged
from export.core.keras_graph import Call, Change, calls, like, readers, rebuild
from zoo.common.lazy import keras, np
from zoo.layers.lazy import layers

if TYPE_CHECKING:
    import keras as _keras


def fold_scales(network: _keras.Model) -> _keras.Model:
    """Return a network of the same function in inference without scales that a neighbour can take in.

    A layer scale goes into the convolution or dense layer before it; scale and offset of a layer normalization go into
    the dense layers behind it if nothing else reads it.

    Args:
        network: a functional network; it stays as it is.
    """
    graph = calls(network)
    uses = [call.layer.name for call in graph]
    once = [call for call in graph if uses.count(call.layer.name) == 1]
    scaled = dict(_into_before(network, once))
    # One at a time for a layer, which a scale may follow and a normalization precede.
    network = rebuild(network, scaled) if scaled else network
    shifted = dict(_into_behind(network, {call.layer.name for call in once}))
    return rebuild(network, shifted) if shifted else network


def _into_before(network: Any, once: list[Call]) -> Iterator[tuple[str, Change]]:
    """Yield what becomes of layer scales, and of the layers before them."""
    read = readers(network)
    makers = {id(tensor): call for call in once for tensor in call.outputs}
    for call in once:
        before = makers.get(id(call.inputs[0])) if isinstance(call.layer, layers.LayerScale) else None
        if before and absorbs(before.layer) and len(read[id(call.inputs[0])]) == 1:
            scale = np.asarray(call.layer.gamma, "float64")
            yield before.layer.name, merged(before.layer, scale, np.zeros_like(scale))
            yield call.layer.name, Change()


def _into_behind(network: Any, once: set[str]) -> Iterator[tuple[str, Change]]:
    """Yield what becomes of layer normalizations, and of the dense layers behind them."""
    read = readers(network)
    for call in calls(network):
        norm = call.layer
        if not isinstance(norm, keras.layers.LayerNormalization) or norm.name not in once:
            continue
        behind = list(_behind(call, read))
        if all(c and isinstance(c.layer, keras.layers.Dense) and c.layer.name in once for c in behind):
            for dense in {c.layer.name: c.layer for c in behind}.values():
                yield dense.name, _taken_in(dense, norm)
            yield norm.name, Change(like(norm, scale=False, center=False), [])


def _behind(call: Call, read: dict[int, list[Call]]) -> Iterator[Call | None]:
    """Yield what reads a call's output, dropout passed over; None where it is an output of the network."""
    for reader in read[id(call.outputs[0])]:
        if reader and isinstance(reader.layer, keras.layers.Dropout):
            yield from _behind(reader, read)
        else:
            yield reader


def _taken_in(dense: Any, norm: Any) -> Change:
    """Return a dense layer that scales and shifts what it is given as a normalization did."""
    kernel = np.asarray(dense.kernel, "float64")
    bias = np.asarray(dense.bias, "float64") if dense.use_bias else np.zeros(kernel.shape[-1])
    if norm.center:
        bias = bias + np.asarray(norm.beta, "float64") @ kernel
    if norm.scale:
        kernel = kernel * np.asarray(norm.gamma, "float64")[:, None]
    return Change(like(dense, use_bias=True), [kernel.astype("float32"), bias.astype("float32")])
