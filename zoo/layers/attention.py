"""Attention, feed-forward networks and transformer blocks, from plain layers.

Vaswani et al. 2017, arXiv:1706.03762. A branch called NAME has the layers NAME_norm, NAME_qkv (or NAME_query and
NAME_key_value), NAME_weights, NAME_values, NAME_project; or NAME_norm, NAME_expand, NAME_gate, NAME_project.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import check_activation, check_counts, check_rate, dense, drop, drop_path
from zoo.layers.heads import Head
from zoo.layers.lazy import layers, sequence

# Shazeer 2020, arXiv:2002.05202: a second expansion, multiplied with the activated one.
GATED = {"reglu": "relu", "geglu": "gelu", "swiglu": "silu"}
# Activations that Keras has no name for.
CUSTOM = ("gelu_tanh",)


@dataclasses.dataclass(frozen=True)
class Block:
    """Options of all blocks of a transformer.

    Args:
        attention_heads: heads of each attention.
        hidden: units of the feed-forward network, 0 for four times the width; a gated network has two thirds of
            them, which keeps the number of parameters.
        activation: "gelu", "gelu_tanh", the gated "reglu", "geglu" and "swiglu", or any of Keras' activations.
        norm: "pre" to normalize the input of a branch, "post" to normalize after the sum, as in 2017.
        epsilon: added to variances.
        attention_bias: whether the projections of attention have biases.
        attention_dropout: fraction of attention weights dropped in training.
        projection_dropout: fraction of a branch's outputs dropped in training.
        layer_scale: initial scale of each channel of a branch (arXiv:2103.17239); 0 for no scale.
    """

    attention_heads: int = 4
    hidden: int = 0
    activation: str = "gelu"
    norm: str = "pre"
    epsilon: float = 1e-6
    attention_bias: bool = True
    attention_dropout: float = 0.0
    projection_dropout: float = 0.0
    layer_scale: float = 0.0

    def check(self, width: int) -> Block:
        """Return the block, or raise BadOption if it cannot have this width."""
        check_counts("width", (width,))
        check_counts("attention_heads", (self.attention_heads,))
        if width % self.attention_heads:
            raise BadOption(
                "width must be a multiple of attention_heads. "
                f"Received: width={width}, attention_heads={self.attention_heads}"
            )
        check_activation("activation", self.activation, (*GATED, *CUSTOM))
        if self.norm not in ("pre", "post"):
            raise BadOption(f"norm must be 'pre' or 'post'. Received: norm={self.norm!r}")
        if self.hidden < 0 or self.layer_scale < 0 or not self.epsilon > 0:
            raise BadOption(
                "hidden and layer_scale must be at least 0 and epsilon above 0. "
                f"Received: hidden={self.hidden}, layer_scale={self.layer_scale}, epsilon={self.epsilon}"
            )
        check_rate(self.attention_dropout, "attention_dropout")
        check_rate(self.projection_dropout, "projection_dropout")
        return self


def encoder_block(
    x: Any, block: Block, head: Head, *, name: str, biases: Sequence[Any] = (), rate: float = 0.0, first: int = 0
) -> Any:
    """Apply self-attention and a feed-forward network, each with a shortcut.

    Args:
        x: vectors (n, t, width).
        block: options of the blocks.
        head: collects the attention weights.
        name: the block's name.
        biases: biases of the attention scores, each (n, 1 or heads, 1 or t, t).
        rate: fraction of examples that skip a branch in training (stochastic depth).
        first: number of vectors to compute, from the front; 0 for all.
    """

    def attend(y: Any) -> Any:
        return self_attention(y, block, head, name=f"{name}_attention", biases=biases, first=first)

    x = branch(x, attend, block, name=f"{name}_attention", rate=rate, first=first)
    return branch(x, lambda y: feed_forward(y, block, name=f"{name}_feed"), block, name=f"{name}_feed", rate=rate)


def decoder_block(
    x: Any, memory: Any, block: Block, head: Head, *, name: str, causal: Any, biases: Sequence[Any] = ()
) -> Any:
    """Apply causal self-attention, attention to a memory, and a feed-forward network.

    Args:
        x: vectors (n, t, width).
        memory: the encoder's vectors (n, s, width).
        block: options of the blocks.
        head: collects the attention weights.
        name: the block's name.
        causal: bias of the scores within x, (1, 1, t, t).
        biases: biases of the scores on the memory, each (n, 1, 1, s).
    """

    def attend_self(y: Any) -> Any:
        return self_attention(y, block, head, name=f"{name}_attention", biases=[causal], cached=True)

    def attend_memory(y: Any) -> Any:
        return memory_attention(y, memory, block, head, name=f"{name}_memory", biases=biases)

    x = branch(x, attend_self, block, name=f"{name}_attention")
    x = branch(x, attend_memory, block, name=f"{name}_memory")
    return branch(x, lambda y: feed_forward(y, block, name=f"{name}_feed"), block, name=f"{name}_feed")


def branch(x: Any, inner: Callable[[Any], Any], block: Block, *, name: str, rate: float = 0.0, first: int = 0) -> Any:
    """Return x, or its first vectors, plus `inner(x)`, normalized before or after."""
    y = inner(layer_norm(x, block.epsilon, name=f"{name}_norm") if block.norm == "pre" else x)
    if first:
        x = sequence.First(first, name=f"{name}_first")(x)
    if block.layer_scale:
        y = layers.LayerScale(block.layer_scale, name=f"{name}_scale")(y)
    x = keras.layers.Add(name=f"{name}_add")([x, drop_path(y, rate, name=f"{name}_drop_path")])
    return x if block.norm == "pre" else layer_norm(x, block.epsilon, name=f"{name}_norm")


def self_attention(
    x: Any,
    block: Block,
    head: Head,
    *,
    name: str,
    biases: Sequence[Any] = (),
    cached: bool = False,
    first: int = 0,
) -> Any:
    """Apply self-attention to all or the first vectors of x (n, t, width); one dense layer projects q, k and v."""
    qkv = dense(x, 3 * x.shape[-1], name=f"{name}_qkv", use_bias=block.attention_bias)
    q, k, v = sequence.SplitHeads(block.attention_heads, 3, name=f"{name}_split")(qkv)
    if first:
        q = sequence.First(first, name=f"{name}_first_queries")(q)
    if cached:
        k, v = sequence.Cache(x.shape[1], name=f"{name}_cache")([k, v])
    return _attend(q, k, v, block, head, name, biases)


def memory_attention(x: Any, memory: Any, block: Block, head: Head, *, name: str, biases: Sequence[Any] = ()) -> Any:
    """Apply attention of x (n, t, width) to a memory (n, s, width)."""
    width = x.shape[-1]
    query = dense(x, width, name=f"{name}_query", use_bias=block.attention_bias)
    key_value = dense(memory, 2 * width, name=f"{name}_key_value", use_bias=block.attention_bias)
    (q,) = sequence.SplitHeads(block.attention_heads, 1, name=f"{name}_split")(query)
    parts = sequence.SplitHeads(block.attention_heads, 2, name=f"{name}_memory_split")(key_value)
    k, v = sequence.Memory(name=f"{name}_kept")(parts)
    return _attend(q, k, v, block, head, name, biases)


def _attend(q: Any, k: Any, v: Any, block: Block, head: Head, name: str, biases: Sequence[Any]) -> Any:
    """Return (n, queries, width) from queries, keys and values, each (n, heads, t, d)."""
    weights = head.attend(sequence.AttentionWeights(name=f"{name}_weights")([q, k, *biases]))
    weights = drop(weights, block.attention_dropout, name=f"{name}_weights_dropout")
    x = sequence.AttentionValues(name=f"{name}_values")([weights, v])
    x = dense(x, x.shape[-1], name=f"{name}_project", use_bias=block.attention_bias)
    return drop(x, block.projection_dropout, name=f"{name}_dropout")


def feed_forward(x: Any, block: Block, *, name: str) -> Any:
    """Expand each vector of x (n, t, width), activate, and project back."""
    width, inner = x.shape[-1], GATED.get(block.activation)
    hidden = block.hidden or 4 * width
    if inner is None:
        y = activate(dense(x, hidden, name=f"{name}_expand"), block.activation, name=f"{name}_expand")
    else:
        hidden = max(1, round(hidden * 2 / 3))
        gate = activate(dense(x, hidden, name=f"{name}_gate"), inner, name=f"{name}_gate")
        y = keras.layers.Multiply(name=f"{name}_gated")([gate, dense(x, hidden, name=f"{name}_expand")])
    y = dense(y, width, name=f"{name}_project")
    return drop(y, block.projection_dropout, name=f"{name}_dropout")


def activate(x: Any, activation: str, *, name: str) -> Any:
    """Activate in a layer named NAME_ACTIVATION."""
    function = getattr(layers, activation) if activation in CUSTOM else activation
    return layers.Activation(function, name=f"{name}_{activation}")(x)


def layer_norm(x: Any, epsilon: float, *, name: str) -> Any:
    """Normalize each vector."""
    return layers.LayerNormalization(epsilon=epsilon, name=name)(x)


def check_positions(positions: str) -> str:
    """Return the checked kind of positional embedding, or raise BadOption."""
    if positions not in ("learned", "sinusoidal"):
        raise BadOption(f"positions must be 'learned' or 'sinusoidal'. Received: positions={positions!r}")
    return positions
