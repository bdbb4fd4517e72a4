"""The Transformer: sequence-to-sequence generation by attention alone.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, "Attention is all you need", 2017
(arXiv:1706.03762). Source, target and logits share one embedding table (section 3.4).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.layers.attention import Block, check_positions, decoder_block, encoder_block, layer_norm
from zoo.layers.blocks import check_counts, drop
from zoo.layers.heads import Head
from zoo.layers.lazy import sequence
from zoo.specs.registry import ModelSpec, register
from zoo.specs.text import check_vocabulary

TRANSFORMER = ModelSpec(
    input_shape=(128, 128),
    classes=37_000,
    paper="Vaswani et al. 2017, arXiv:1706.03762",
    tags=("text", "attention", "sequence-to-sequence"),
    input_dtype="int32",
    vocabulary=37_000,
    task="generate",
)
TINY = dataclasses.replace(
    TRANSFORMER, input_shape=(16, 16), classes=64, vocabulary=64, tags=(*TRANSFORMER.tags, "small")
)
# Equations 1 and 2: attention projections have no biases, the feed-forward layers do. Dropout is that of section 5.4.
variant = partial(register, attention_heads=8, activation="relu", norm="post", attention_bias=False)


@variant("transformer_base", TRANSFORMER, params=63_045_632, width=512, projection_dropout=0.1)
@variant("transformer_big", TRANSFORMER, params=214_171_648, width=1024, attention_heads=16, projection_dropout=0.3)
@variant("transformer_tiny", TINY, params=169_984, width=64, depths=(2, 2), attention_heads=4, hidden=128)
def transformer(
    x: Any,
    head: Head,
    *,
    vocabulary: int,
    depths: tuple[int, ...] = (6, 6),
    width: int = 512,
    positions: str = "sinusoidal",
    block: Block = Block(),
    dropout: float = 0.0,
) -> Any:
    """Build an encoder of the source and a decoder that predicts the next token at each position of the target.

    Args:
        x: tokens {"source": (n, source length), "target": (n, target length)}, int32, padded with 0 at the end; the
            target starts with `START` and lacks its last token.
        head: computes logits from the decoder's vectors.
        vocabulary: number of tokens.
        depths: number of blocks in the encoder and in the decoder.
        width: channels of a token's vector.
        positions: "sinusoidal" as in section 3.5, or "learned".
        block: options of the blocks; its projection_dropout also applies to the sums of embeddings and positions.
        dropout: fraction of the decoder's last vectors dropped in training.

    Returns:
        The head's output, logits (n, target length, vocabulary).
    """
    check_vocabulary(vocabulary)
    if len(check_counts("depths", depths)) != 2:
        raise BadOption(
            f"depths must be two numbers: blocks of the encoder and of the decoder. Received: depths={depths}"
        )
    block.check(width)
    learned = check_positions(positions) == "learned"
    table = sequence.TokenEmbedding(vocabulary, width, scaled=True, name="embedding")

    def vectors(name: str) -> Any:
        y = sequence.Positions(x[name].shape[1], learned, name=f"{name}_positions")(table(x[name]))
        return drop(y, block.projection_dropout, name=f"{name}_dropout")

    padding = sequence.PaddingBias(name="source_padding")(x["source"])
    memory = vectors("source")
    for i in range(1, depths[0] + 1):
        memory = encoder_block(memory, block, head, name=f"encoder{i}", biases=[padding])
    memory = _final_norm(memory, block, name="encoder_norm")
    causal = sequence.CausalBias(x["target"].shape[1], name="target_causal")(x["target"])
    y = vectors("target")
    for i in range(1, depths[1] + 1):
        y = decoder_block(y, memory, block, head, name=f"decoder{i}", causal=causal, biases=[padding])
    y = drop(_final_norm(y, block, name="decoder_norm"), dropout, name="head_dropout")
    return head.token_logits(y, table)


def _final_norm(x: Any, block: Block, *, name: str) -> Any:
    """Normalize the last sum of pre-normalization blocks."""
    return layer_norm(x, block.epsilon, name=name) if block.norm == "pre" else x
