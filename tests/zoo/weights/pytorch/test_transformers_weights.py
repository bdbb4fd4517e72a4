"""Weights of BERT and DistilBERT: the outputs are those of Hugging Face's transformers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_state import random_ids, random_state
from weights_cases import one_line, slow_unless

import zoo
from zoo.common.errors import BadOption
from zoo.weights.source import HeadWarning

HERE = Path(__file__).parent
# Outputs for a reproducible state; see record_transformers.py.
REFERENCES = json.loads(gzip.decompress((HERE / "transformers_references.json.gz").read_bytes()))
SMALL = {"vocabulary": 1000, "width": 64, "depth": 2, "attention_heads": 4, "hidden": 256}


def options_of(name):
    """The options of our model for a reference."""
    small = REFERENCES[name]["keys"]
    width = next(shape[0] for key, shape in small.items() if key.endswith("LayerNorm.weight"))
    return {"input_shape": (32,)} | (SMALL if width == 64 else {})


def file_of(name, folder, change=dict):
    """A safetensors file of the state of a reference."""
    state = change(random_state({key: tuple(shape) for key, shape in REFERENCES[name]["keys"].items()}))
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


def error(outputs, expected):
    """The largest difference from the recorded values, as a fraction of the largest of them."""
    expected = np.array(expected)
    return np.abs(np.asarray(outputs)[..., : expected.shape[-1]] - expected).max() / np.abs(expected).max()


def errors(name, path):
    """The error of each recorded output of a reference, with the weights of a file."""
    reference = REFERENCES[name]
    given = {"logits": {"classes": 5}, "pooled": {"pooling": "class", "pooler": "tanh", "normalize": False}}
    found, ids = {}, random_ids(SMALL["vocabulary"] if "base" not in name and "minilm" not in name else 30_522)
    for kind, expected in reference["outputs"].items():
        more = given.get(kind, {"include_top": False})
        outputs = np.asarray(zoo.get(reference["model"], weights=path, **options_of(name), **more)(ids))
        if kind == "states":
            outputs = outputs[:, ::8]
        if "tagger" in name or kind == "states":  # both compute something for padding, which nobody reads
            rows = ids[:, :: 8 if kind == "states" else 1] > 0
            outputs, expected = outputs[rows], np.array(expected)[rows]
        found[kind] = error(outputs, expected)
    return found


@pytest.mark.parametrize("name", [slow_unless("base" not in n and "minilm" not in n, n) for n in REFERENCES])
def test_outputs_are_those_of_transformers(name, tmp_path):
    """Vectors of tokens, the pooled vector and logits of every architecture, from its own file."""
    found = errors(name, file_of(name, tmp_path))
    assert found
    assert max(found.values()) < 1e-5


def swapped(state):
    first, second = (f"encoder.layer.0.attention.self.{part}.weight" for part in ("query", "value"))
    return state | {first: state[second], second: state[first]}


def moved(state):
    return state | {"embeddings.token_type_embeddings.weight": state["embeddings.token_type_embeddings.weight"][::-1]}


@pytest.mark.parametrize("change", [swapped, moved])
def test_comparison_can_fail(change, tmp_path):
    """Control: another order of parts that have one shape."""
    path = file_of("bert", tmp_path, lambda state: {k: np.ascontiguousarray(v) for k, v in change(state).items()})
    assert max(errors("bert", path).values()) > 1e-3


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("distilbert_base", {}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("bert_base", {}), ("minilm_l12", {"pooler": "tanh"}))
        ),
    ],
)
def test_parameters_are_those_of_transformers(name, arguments):
    """At 512 positions, and with the pooler where they have one."""
    assert zoo.get(name, input_shape=(512,), **arguments).count_params() == REFERENCES[name]["params"]


def test_original_names_are_read(tmp_path):
    """The first published files name the scale and offset of a norm gamma and beta, below "bert."."""

    def original(state):
        words = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        named = {key: next((key.replace(w, n) for w, n in words.items() if w in key), key) for key in state}
        return {f"bert.{named[key]}": value for key, value in state.items()}

    assert max(errors("bert", file_of("bert", tmp_path, original)).values()) < 1e-5


def test_head_starts_at_random_over_an_encoder_alone(tmp_path):
    """A file without a classifier gives the trunk, and one line says that the last layer is random."""
    path = file_of("bert", tmp_path)
    with pytest.warns(HeadWarning, match=r"the last layer of bert_tiny \(3 classes\) starts at random"):
        model = zoo.get("bert_tiny", weights=path, classes=3, **options_of("bert"))
    assert model.output_shape == (None, 3)


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def with_two(state):
    return state | {"bert.embeddings.LayerNorm.weight": np.ones(64, "float32")}


def uneven(state):
    return state | {"encoder.layer.1.attention.self.key.weight": np.ones((64, 32), "float32")}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (without("encoder.layer.1.attention.self.key.bias"), "missing there: encoder.layer.1.attention.self.qkv.bias"),
        (without("embeddings.LayerNorm.bias"), "1 missing there: embeddings.LayerNorm.bias"),
        (with_two, "two of embeddings.LayerNorm.weight"),
        (uneven, "weights must fit together"),
    ],
)
def test_fault_is_refused(change, hint, tmp_path):
    """One line names the difference."""
    with pytest.raises(BadOption) as refused:
        zoo.get("bert_tiny", weights=file_of("bert", tmp_path, change), **options_of("bert"))
    assert hint in one_line(refused.value)


def test_options_of_the_file_are_enforced(tmp_path):
    """The classifier of a file goes with its own pooling; an encoder alone leaves it open."""
    classifier = file_of("bert_classifier", tmp_path)
    with pytest.raises(BadOption, match=r"Received: pooling='mean' for .*, made with pooling='class'"):
        zoo.get("bert_tiny", weights=classifier, pooling="mean", classes=5, **options_of("bert"))
