"""Record state-dict keys and outputs of BERT and DistilBERT in transformers as references for the tests.

Needs torch and transformers 5; the tests only read its output, transformers_references.json.gz. As in record_torch.py,
NumPy alone reproduces the state and the ids. Run:

    python tests/zoo/weights/pytorch/record_transformers.py
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch_state import random_ids, random_state

REFERENCES = Path(__file__).with_name("transformers_references.json.gz")
SAVED = 16
SMALL = {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 256, "num_labels": 5}
SMALL_DISTIL = {"vocab_size": 1000, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 256, "num_labels": 5}
MINILM = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
# Our name, the architecture there, and its configuration.
MODELS = {
    "bert": ("bert_tiny", "BertModel", SMALL),
    "bert_classifier": ("bert_tiny", "BertForSequenceClassification", SMALL),
    "bert_tagger": ("bert_tiny_tagger", "BertForTokenClassification", SMALL),
    "bert_pretraining": ("bert_tiny", "BertForPreTraining", SMALL),
    "distilbert": ("distilbert_base", "DistilBertModel", SMALL_DISTIL),
    "distilbert_classifier": ("distilbert_base", "DistilBertForSequenceClassification", SMALL_DISTIL),
    "distilbert_tagger": ("distilbert_base_tagger", "DistilBertForTokenClassification", SMALL_DISTIL),
    "bert_base": ("bert_base", "BertModel", {}),
    "minilm_l12": ("minilm_l12", "BertModel", MINILM | {"num_hidden_layers": 12}),
    "distilbert_base": ("distilbert_base", "DistilBertModel", {}),
}


def record(name: str) -> dict[str, Any]:
    """Build, fill and run one model, and return its entry."""
    ours, kind, options = MODELS[name]
    architecture = getattr(transformers, kind)
    model = architecture(architecture.config_class(**options)).eval()
    # The same arrays as those of the embedding, under a second name.
    tied = [key for key in model.state_dict() if key.startswith("cls.predictions.decoder")]
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items() if key not in tied}
    state = random_state(shapes)
    model.load_state_dict({key: torch.from_numpy(np.asarray(array)) for key, array in state.items()}, strict=not tied)
    ids = random_ids(model.config.vocab_size)
    with torch.inference_mode():
        mask = torch.from_numpy((ids > 0).astype("int64"))
        found = model(torch.from_numpy(ids).long(), attention_mask=mask, output_hidden_states=True)
    outputs = {"logits": found.get("logits"), "pooled": found.get("pooler_output")}
    outputs["states"] = found.hidden_states[-1][:, ::8]
    kept = {key: value.numpy()[..., :SAVED] for key, value in outputs.items() if value is not None}
    return {
        "model": ours,
        "keys": {key: list(shape) for key, shape in shapes.items()},
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "outputs": {key: np.vectorize(lambda v: float(f"{v:.9g}"))(value).tolist() for key, value in kept.items()},
        "versions": {"torch": torch.__version__.partition("+")[0], "transformers": transformers.__version__},
    }


if __name__ == "__main__":
    text = json.dumps({name: record(name) for name in MODELS}, separators=(",", ":"))
    REFERENCES.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
