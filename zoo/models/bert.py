"""BERT and its distilled forms: encoders of text with published weights, which give a vector for a text or a token.

Devlin, Chang, Lee, Toutanova 2018, arXiv:1810.04805 (BERT); Sanh, Debut, Chaumond, Wolf 2019, arXiv:1910.01108
(DistilBERT); Wang et al. 2020, arXiv:2002.10957 (MiniLM); sizes of Turc, Chang, Lee, Toutanova 2019, arXiv:1908.08962
(mini); Reimers, Gurevych 2019, arXiv:1908.10084 (a text's vector as the mean of its tokens).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.layers.attention import Block, encoder_block, layer_norm
from zoo.layers.blocks import check_activation, check_counts, dense, drop
from zoo.layers.heads import Head
from zoo.layers.lazy import layers, sequence
from zoo.specs.registry import ModelSpec, register
from zoo.specs.text import check_vocabulary
from zoo.weights.published.bert import BERT_NAMES, BERT_TAGGER_NAMES, DISTIL_NAMES, DISTIL_TAGGER_NAMES

BERT = ModelSpec(
    input_shape=(512,),
    classes=768,
    paper="Devlin et al. 2018, arXiv:1810.04805",
    tags=("text", "attention"),
    input_dtype="int32",
    vocabulary=30_522,
    task="embed",
)
DISTIL = dataclasses.replace(BERT, paper="Sanh et al. 2019, arXiv:1910.01108")
# The lengths with which all-MiniLM-L6-v2 and L12-v2 are used.
MINILM = dataclasses.replace(BERT, input_shape=(256,), classes=384, paper="Wang et al. 2020, arXiv:2002.10957")
MINILM_12 = dataclasses.replace(MINILM, input_shape=(128,))
TINY = dataclasses.replace(BERT, input_shape=(32,), classes=64, vocabulary=1_000, tags=(*BERT.tags, "small"))
# The tags of CoNLL-2003: beginning and inside of four kinds of names, and outside.
TAGS = {"classes": 9, "task": "tag"}
BLOCK = {"norm": "post", "epsilon": 1e-12, "attention_dropout": 0.1, "projection_dropout": 0.1}
POOLED = {"pooling": "class", "pooler": "tanh"}
MEAN = {"pooling": "mean", "normalize": True}
MICRO = {"width": 64, "depth": 2, "attention_heads": 4}
BASE = {"width": 768, "attention_heads": 12}
SMALL = {"width": 384, "attention_heads": 12}
bert = partial(register, **BLOCK, name_mappings=BERT_NAMES)
distil = partial(register, **BLOCK, name_mappings=DISTIL_NAMES, token_types=0)
tags = partial(register, **BLOCK, name_mappings=BERT_TAGGER_NAMES)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """Options of the embedding and the stack of blocks.

    Args:
        vocabulary: number of tokens.
        width: channels of a token's vector.
        depth: number of blocks.
        token_types: rows of the embedding of types, which tell the texts of a pair apart; a text alone has the first,
            and 0 is no such embedding.
    """

    vocabulary: int = 1_000
    width: int = 64
    depth: int = 12
    token_types: int = 2

    def check(self) -> Trunk:
        """Return the trunk, or raise BadOption."""
        check_vocabulary(self.vocabulary)
        check_counts("width", (self.width,))
        check_counts("depth", (self.depth,))
        if self.token_types < 0:
            raise BadOption(f"token_types must be at least 0. Received: token_types={self.token_types}")
        return self


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Options of the vector of a text.

    Args:
        pooling: "mean" for the average of the tokens without padding, "class" for the first token.
        pooler: activation of a dense layer after it, "tanh" in BERT and "relu" in DistilBERT's classifiers; "" for
            none.
        normalize: scale the vector to length 1 if it is the output; logits are computed from the vector as it is.
    """

    pooling: str = "mean"
    pooler: str = ""
    normalize: bool = False

    def check(self) -> Pooling:
        """Return the options, or raise BadOption."""
        if self.pooling not in ("mean", "class"):
            raise BadOption(f"pooling must be 'mean' or 'class'. Received: pooling={self.pooling!r}")
        if self.pooler:
            check_activation("pooler", self.pooler)
        return self

    def __call__(self, x: Any, padding: Any, head: Head) -> Any:
        """Return the vectors (n, width) of texts (n, length, width) with the attention bias of their padding."""
        x = sequence.TakeToken(name="pool")(x) if self.pooling == "class" else _mean(x, padding)
        if self.pooler:
            x = dense(x, x.shape[-1], name="pooler")
            x = layers.Activation(self.pooler, name=f"pooler_{self.pooler}")(x)
        if head.tasks:
            return x
        last = sequence.UnitVector if self.normalize else partial(layers.Activation, "linear")
        return last(name="vector", dtype="float32")(x)


@bert("bert_tiny", TINY, params=166_272, **MICRO, **MEAN)
@bert("bert_mini", dataclasses.replace(BERT, classes=256), params=11_170_560, width=256, depth=4, **POOLED)
@bert("bert_base", BERT, params=109_482_240, depth=12, **BASE, **POOLED)
@bert(
    "bert_large",
    dataclasses.replace(BERT, classes=1024),
    params=335_141_888,
    width=1024,
    depth=24,
    attention_heads=16,
    **POOLED,
)
@bert("minilm_l6", MINILM, params=22_467_072, depth=6, **SMALL, **MEAN)
@bert("minilm_l12", MINILM_12, params=33_064_704, depth=12, **SMALL, **MEAN)
@distil("distilbert_base", DISTIL, params=66_362_880, depth=6, **BASE)
def bert_encoder(
    ids: Any,
    head: Head,
    *,
    trunk: Trunk = Trunk(),
    block: Block = Block(),
    pooling: Pooling = Pooling(),
    dropout: float = 0.0,
) -> Any:
    """Build an encoder that gives one vector for a text; with classes=, or heads=, logits.

    Args:
        ids: tokens (n, length), int32, padded with 0 at the end.
        head: computes logits from the pooled vector (n, width).
        trunk: vocabulary, width, depth and token types.
        block: options of the blocks; its projection_dropout also applies to the sum of embeddings.
        pooling: how the vectors of the tokens become one.
        dropout: fraction of the pooled vector dropped in training.

    Returns:
        The head's output: vectors (n, width), or logits (n, classes).
    """
    x, padding = _encoded(ids, head, trunk.check(), block.check(trunk.width))
    return head(x, dropout, neck=lambda x: pooling.check()(x, padding, head))


@tags("bert_tiny_tagger", dataclasses.replace(TINY, **TAGS), params=166_857, **MICRO)
@tags("bert_base_tagger", dataclasses.replace(BERT, **TAGS), params=108_898_569, depth=12, **BASE)
@tags("minilm_l6_tagger", dataclasses.replace(MINILM, **TAGS), params=22_470_537, depth=6, **SMALL)
@register(
    "distilbert_base_tagger",
    dataclasses.replace(DISTIL, **TAGS),
    params=66_369_801,
    name_mappings=DISTIL_TAGGER_NAMES,
    depth=6,
    token_types=0,
    **BASE,
    **BLOCK,
)
def bert_tagger(ids: Any, head: Head, *, trunk: Trunk = Trunk(), block: Block = Block(), dropout: float = 0.0) -> Any:
    """Build an encoder that classifies each token; returns logits (n, length, classes), also of padding.

    The arguments are those of `bert_encoder`; the head and dropout get the vectors of all tokens (n, length, width).
    """
    x, _ = _encoded(ids, head, trunk.check(), block.check(trunk.width))
    return head(x, dropout, neck=lambda x: x)


def _encoded(ids: Any, head: Head, trunk: Trunk, block: Block) -> tuple[Any, Any]:
    """Return vectors (n, length, width) of the tokens, and the attention bias of padding."""
    padding = sequence.PaddingBias(name="padding")(ids)
    x = sequence.TokenEmbedding(trunk.vocabulary, trunk.width, name="words")(ids)
    if trunk.token_types:
        x = sequence.TokenTypes(trunk.token_types, name="token_types")(x)
    x = sequence.Positions(x.shape[1], name="positions")(x)
    x = drop(layer_norm(x, block.epsilon, name="embedding_norm"), block.projection_dropout, name="embedding_dropout")
    for i in range(1, trunk.depth + 1):
        x = encoder_block(x, block, head, name=f"block{i}", biases=[padding])
    return (layer_norm(x, block.epsilon, name="last_norm") if block.norm == "pre" else x), padding


def _mean(x: Any, padding: Any) -> Any:
    return sequence.MeanToken(name="pool")([x, padding])
