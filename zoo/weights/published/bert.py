"""BERT and DistilBERT: names of Hugging Face's transformers, with those of original BERT's norms."""

from __future__ import annotations

import dataclasses

from zoo.specs.published import NameMapping, PublishedWeights

# A file may have the encoder alone, below "bert." in a model with a head, and the gamma and beta of TensorFlow.
PREFIXES = ((r"(bert|distilbert|0\.auto_model)\.", ""), (r"(.*LayerNorm)\.gamma", r"\1.weight"))
RENAMED = (*PREFIXES, (r"(.*LayerNorm)\.beta", r"\1.bias"))
# Heads of pretraining, and what this library computes itself.
PRETRAINING = (r"cls\..*", r"vocab_\w+\..*", r"embeddings\.position_ids")
HEADS = (r"pooler\..*", r"pre_classifier\..*", r"classifier\..*", r"qa_outputs\..*")

EMBEDDINGS = (
    ("words", "embeddings.word_embeddings"),
    ("token_types", "embeddings.token_type_embeddings"),
    ("positions", "embeddings.position_embeddings"),
    ("embedding_norm", "embeddings.LayerNorm"),
)
BERT = NameMapping(
    rules=(
        *EMBEDDINGS,
        (r"block(\d+)_attention_qkv", "encoder.layer.{0:-1}.attention.self.qkv"),
        (r"block(\d+)_attention_project", "encoder.layer.{0:-1}.attention.output.dense"),
        (r"block(\d+)_attention_norm", "encoder.layer.{0:-1}.attention.output.LayerNorm"),
        (r"block(\d+)_feed_expand", "encoder.layer.{0:-1}.intermediate.dense"),
        (r"block(\d+)_feed_project", "encoder.layer.{0:-1}.output.dense"),
        (r"block(\d+)_feed_norm", "encoder.layer.{0:-1}.output.LayerNorm"),
        ("pooler", "pooler.dense"),
    ),
    ignored=(*PRETRAINING, *HEADS),
    renamed=RENAMED,
    joined=((r"(.*attention\.self)\.(query|key|value)", r"\1.qkv", ("query", "key", "value")),),
    open=True,
    headless=True,
)
DISTIL = dataclasses.replace(
    BERT,
    rules=(
        *EMBEDDINGS,
        (r"block(\d+)_attention_qkv", "transformer.layer.{0:-1}.attention.qkv"),
        (r"block(\d+)_attention_project", "transformer.layer.{0:-1}.attention.out_lin"),
        (r"block(\d+)_attention_norm", "transformer.layer.{0:-1}.sa_layer_norm"),
        (r"block(\d+)_feed_expand", "transformer.layer.{0:-1}.ffn.lin1"),
        (r"block(\d+)_feed_project", "transformer.layer.{0:-1}.ffn.lin2"),
        (r"block(\d+)_feed_norm", "transformer.layer.{0:-1}.output_layer_norm"),
        ("pooler", "pre_classifier"),
    ),
    joined=((r"(.*attention)\.(q_lin|k_lin|v_lin)", r"\1.qkv", ("q_lin", "k_lin", "v_lin")),),
)


def _classifier(mapping: NameMapping, pooler: str | None) -> NameMapping:
    """Return the names with those of a classifier of texts, after a pooler, or of tokens."""
    arguments = {} if pooler is None else {"pooling": "class", "pooler": pooler}
    return dataclasses.replace(mapping, rules=(*mapping.rules, ("logits", "classifier")), arguments=arguments)


BERT_NAMES = {"transformers": BERT, "transformers_classifier": _classifier(BERT, "tanh")}
DISTIL_NAMES = {"transformers": DISTIL, "transformers_classifier": _classifier(DISTIL, "relu")}
BERT_TAGGER_NAMES = {"transformers": _classifier(BERT, None)}
DISTIL_TAGGER_NAMES = {"transformers": _classifier(DISTIL, None)}

NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    **dict.fromkeys(("bert_tiny", "bert_mini", "bert_base", "bert_large", "minilm_l6", "minilm_l12"), BERT_NAMES),
    **dict.fromkeys(("bert_tiny_tagger", "bert_base_tagger", "minilm_l6_tagger"), BERT_TAGGER_NAMES),
    "distilbert_base": DISTIL_NAMES,
    "distilbert_base_tagger": DISTIL_TAGGER_NAMES,
}
# Weights are a file, a folder or a repository, with the vocabulary beside them.
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = dict.fromkeys(NAME_MAPPINGS, ())
