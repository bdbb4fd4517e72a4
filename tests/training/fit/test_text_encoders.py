"""Fine-tuning a text encoder: the options and the tokenization of its weights replace those of the data."""

from __future__ import annotations

import dataclasses
import string

import numpy as np
import pytest

import training
import zoo
from training.datasets import word_roles
from training.learning.evaluation import open_data
from training.runs.run import Run
from zoo.specs.text import SPECIAL, TextConfig, WordPieceConfig

pytestmark = pytest.mark.tensorflow

LETTERS = (*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase))
TEXT = WordPieceConfig(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *LETTERS))
# One word has several pieces.
LENGTH = 48
QUICK = {"data.length": [LENGTH], "epochs": 1, "model.options": {}, "schedule.warmup_epochs": 0, "log.every": 0}


@pytest.fixture
def weights(request, tmp_path):
    """A file of a small model with random weights, another epsilon, and a tokenization."""
    from zoo.layers.saving import with_info

    model = zoo.get(request.param, input_shape=(LENGTH,), epsilon=1e-5)
    model = with_info(model, dataclasses.replace(zoo.info(model), text=TEXT, license="mit"))
    zoo.save_weights(model, tmp_path / "encoder.safetensors")
    return tmp_path / "encoder.safetensors"


@pytest.mark.parametrize(
    ("weights", "recipe"),
    [
        pytest.param("bert_tiny", "word_order_encoder", marks=pytest.mark.slow),
        ("bert_tiny_tagger", "word_roles_tagger"),
    ],
    indirect=["weights"],
)
def test_recipe_takes_the_tokenization_of_the_weights(weights, recipe, request, monkeypatch, tmp_path):
    """The run has the ids, options and rows of the pretrained encoder, and its model knows them."""
    for split in word_roles.SIZES:
        monkeypatch.setitem(word_roles.SIZES, split, 128)
    name = request.node.callspec.params["weights"]
    changes = {"model.name": name, "model.weights": str(weights), **QUICK}
    run = training.train(recipe, changes, run=tmp_path / "run")
    assert Run.open(run.path).text() == TEXT
    data = open_data(run)
    x, y = data.raw("test", 2)
    pieces = [TEXT.vocabulary[i] for i in x[0] if i]
    words = data.strings("test", 1)[0].split()
    assert (pieces[0], pieces[-1]) == ("[CLS]", "[SEP]")
    assert "".join(piece.removeprefix("##") for piece in pieces[1:-1]).startswith(words[0].lower())
    if "tagger" in name:
        starts = [i for i, piece in enumerate(pieces) if piece[:2] != "##" and piece not in TEXT.special]
        assert np.flatnonzero(y[0] >= 0).tolist() == starts
    model = zoo.load_model(run.model_path)
    assert model.get_layer("words").vocabulary == 1000
    assert model.get_layer("embedding_norm").epsilon == 1e-5
    assert (zoo.info(model).text, zoo.info(model).license) == (TEXT, "mit")


@pytest.mark.slow
def test_data_has_its_own_vocabulary_without_weights(tmp_path):
    """Control: random weights take the words of the data, which the model then knows."""
    run = training.train("word_order_encoder", {"model.name": "bert_tiny", **QUICK}, run=tmp_path / "run")
    text = Run.open(run.path).text()
    assert type(text) is TextConfig
    assert text.vocabulary[: len(SPECIAL)] == SPECIAL
    model = zoo.load_model(run.model_path)
    assert zoo.info(model).text == text
    assert model.get_layer("words").vocabulary == len(text.vocabulary)
    strings = open_data(run).strings("test", 4)
    assert np.array_equal(zoo.tokenize(model, strings), open_data(run).raw("test", 4)[0])
