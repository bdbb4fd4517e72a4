"""Transformer encoders for text: classification of a sequence, or of each token.

Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin 2017, arXiv:1706.03762; Devlin, Chang, Lee,
Toutanova 2018, arXiv:1810.04805 (BERT); sizes of Turc, Chang, Lee, Toutanova 2019, arXiv:1908.08962. There are
no segments, and normalization comes before each branch (Xiong et al. 2020, arXiv:2002.04745); norm="post" is BERT's.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.layers.attention import Block, check_positions, encoder_block, layer_norm
from zoo.layers.blocks import check_counts, check_rate, drop
from zoo.layers.heads import Head
from zoo.layers.lazy import sequence
from zoo.specs.registry import ModelSpec, register
from zoo.specs.text import check_vocabulary

ENCODER = ModelSpec(
    input_shape=(512,),
    classes=2,
    paper="Devlin et al. 2018, arXiv:1810.04805",
    tags=("text", "attention"),
    input_dtype="int32",
    vocabulary=30_522,
)
TINY = dataclasses.replace(ENCODER, input_shape=(64,), vocabulary=1_000, tags=(*ENCODER.tags, "small"))
# The tags of CoNLL-2003: beginning and inside of four kinds of names, and outside.
TAGS = {"classes": 9, "task": "tag"}
# BERT's dropout rates.
BERT_DROPOUT = {"attention_dropout": 0.1, "projection_dropout": 0.1}
variant = partial(register, like=ENCODER, **BERT_DROPOUT)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """Options of the embedding and the stack of blocks.

    Args:
        vocabulary: number of tokens.
        width: channels of a token's vector.
        depth: number of blocks.
        positions: "learned" for a learned vector of each position, "sinusoidal" for those of the Transformer.
        drop_path: probability of dropping a branch of the last block for an example in training; it grows linearly
            from 0 at the first block.
    """

    vocabulary: int = 1_000
    width: int = 64
    depth: int = 2
    positions: str = "learned"
    drop_path: float = 0.0

    def check(self) -> Trunk:
        """Return the trunk, or raise BadOption."""
        check_vocabulary(self.vocabulary)
        check_counts("width", (self.width,))
        check_counts("depth", (self.depth,))
        check_rate(self.drop_path, "drop_path")
        check_positions(self.positions)
        return self


@register("encoder_tiny", TINY, params=168_322, width=64, depth=2)
@variant("encoder_mini", params=11_104_770, width=256, depth=4, attention_heads=4)
@variant("encoder_small", params=28_500_994, width=512, depth=4, attention_heads=8)
@variant("encoder_medium", params=41_110_530, width=512, depth=8, attention_heads=8)
@variant("encoder_base", params=108_891_650, width=768, depth=12, attention_heads=12)
def encoder(
    ids: Any,
    head: Head,
    *,
    trunk: Trunk = Trunk(),
    block: Block = Block(),
    pooling: str = "mean",
    dropout: float = 0.0,
) -> Any:
    """Build an encoder that classifies a sequence.

    Args:
        ids: tokens (n, length), int32, padded with 0 at the end.
        head: computes logits from the pooled vector (n, width).
        trunk: vocabulary, width, depth, positions and drop_path.
        block: options of the blocks; its projection_dropout also applies to the sum of embeddings and positions.
        pooling: "mean" for the average of the tokens without padding, "class" for a learned class token.
        dropout: fraction of the pooled vector dropped in training.

    Returns:
        The head's output, logits (n, classes).
    """
    if pooling not in ("mean", "class"):
        raise BadOption(f"pooling must be 'mean' or 'class'. Received: pooling={pooling!r}")
    front = int(pooling == "class")
    x, padding = _encoded(ids, head, trunk.check(), block.check(trunk.width), front)

    def neck(x: Any) -> Any:
        pooled = sequence.TakeToken(name="pool")(x) if front else sequence.MeanToken(name="pool")([x, padding])
        # int8 rounds 1 / length of the mean coarsely, a common factor of all channels that normalization removes.
        return _final_norm(pooled, block) if block.norm == "pre" or not front else pooled

    return head(x, dropout, neck=neck)


@register("tagger_tiny", dataclasses.replace(TINY, **TAGS), params=168_777, width=64, depth=2)
@register(
    "tagger_base",
    dataclasses.replace(ENCODER, **TAGS),
    params=108_897_033,
    width=768,
    depth=12,
    attention_heads=12,
    **BERT_DROPOUT,
)
def tagger(ids: Any, head: Head, *, trunk: Trunk = Trunk(), block: Block = Block(), dropout: float = 0.0) -> Any:
    """Build an encoder that classifies each token; returns logits (n, length, classes), also of padding.

    The arguments are those of `encoder`; the head and dropout get the vectors of all tokens (n, length, width).
    """
    x, _ = _encoded(ids, head, trunk.check(), block.check(trunk.width))
    return head(x, dropout, neck=lambda x: _final_norm(x, block) if block.norm == "pre" else x)


def _encoded(ids: Any, head: Head, trunk: Trunk, block: Block, front: int = 0) -> tuple[Any, Any]:
    """Return vectors (n, front + length, width), `front` learned tokens first, and the attention bias of padding."""
    padding = sequence.PaddingBias(front, name="padding")(ids)
    # Sinusoidal positions have unit scale, so the embeddings need it too.
    scaled = trunk.positions == "sinusoidal"
    x = sequence.TokenEmbedding(trunk.vocabulary, trunk.width, scaled, name="embedding")(ids)
    x = sequence.Token(name="token")(x) if front else x
    x = sequence.Positions(x.shape[1], not scaled, name="positions")(x)
    if block.norm == "post":
        x = layer_norm(x, block.epsilon, name="embedding_norm")
    x = drop(x, block.projection_dropout, name="embedding_dropout")
    step = trunk.drop_path / max(1, trunk.depth - 1)
    for i in range(trunk.depth):
        x = encoder_block(x, block, head, name=f"block{i + 1}", biases=[padding], rate=step * i)
    return x, padding


def _final_norm(x: Any, block: Block) -> Any:
    return layer_norm(x, block.epsilon, name="head_norm")
