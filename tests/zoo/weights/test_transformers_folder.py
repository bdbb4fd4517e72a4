"""A folder of transformers: its tokenizer and options travel with the weights, and strings become vectors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from weights_cases import one_line, randomize

import zoo
from zoo.common.errors import BadOption
from zoo.specs.registry import models
from zoo.weights.transformers_folder import read_tokenizer

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "##ting", "dog", "a", "##b")
CONFIG = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_attention_heads": 2,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
}
CONFIG |= {"hidden_act": "gelu", "vocab_size": len(TOKENS) + 3, "type_vocab_size": 2}
MODULES = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in
           (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))]  # fmt: skip
TOKENIZER = {
    "model": {"type": "WordPiece", "vocab": {t: i for i, t in enumerate(TOKENS)}, "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "unk_token": "[UNK]"},
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                   "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "added_tokens": [{"content": t} for t in TOKENS[:5]],
}  # fmt: skip


def names_of_transformers(model):
    """The weights of a bert_tiny under the names of transformers."""
    found = {}
    for layer in model.layers:
        for variable in layer.weights:
            mapping = models["bert_tiny"].name_mappings["transformers"]
            kind = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embedding": "weight"}.get(
                variable.name, "bias"
            )
            value = variable.numpy().T if variable.name == "kernel" else variable.numpy()
            name = mapping.rename(layer.name)
            parts = {name: value} if "qkv" not in name else {
                name.replace("qkv", part): each
                for part, each in zip(("query", "key", "value"), np.split(value, 3), strict=True)
            }  # fmt: skip
            found |= {f"{key}.{kind}": np.ascontiguousarray(each) for key, each in parts.items()}
    return found


@pytest.fixture
def folder(tmp_path):
    """A folder with a small model, its tokenizer and its pooling; and the model."""
    from safetensors.numpy import save_file

    model = randomize(zoo.get("bert_tiny", vocabulary=CONFIG["vocab_size"], attention_heads=2, epsilon=1e-6))
    place = tmp_path / "small"
    (place / "1_Pooling").mkdir(parents=True)
    save_file(names_of_transformers(model), place / "model.safetensors")
    files = {"config.json": CONFIG, "modules.json": MODULES, "tokenizer.json": TOKENIZER}
    files["1_Pooling/config.json"] = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    for name, content in files.items():
        (place / name).write_text(json.dumps(content), encoding="utf-8")
    (place / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return place, model


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_strings_become_vectors(file, folder, tmp_path):
    """The options and the tokenization of the folder give the vectors of its model; files of the zoo keep them."""
    place, expected = folder
    model = zoo.get("bert_tiny", weights=str(place / file))
    texts = ["The cats sat.", "the sitting dog", ""]
    ids = zoo.tokenize(model, texts)
    assert [TOKENS[i] for i in ids[0] if i] == ["[CLS]", "the", "cat", "##s", "sat", "[UNK]", "[SEP]"]
    assert (zoo.info(model).options["attention_heads"], zoo.info(model).options["epsilon"]) == (2, 1e-6)
    vectors = zoo.embed(model, texts)
    np.testing.assert_allclose(vectors, np.asarray(expected(ids)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1.0, atol=1e-6)
    model.save(tmp_path / "own.keras")
    zoo.save_weights(model, tmp_path / "own.safetensors")
    copies = [zoo.load_model(tmp_path / "own.keras"), zoo.get("bert_tiny", weights=tmp_path / "own.safetensors")]
    for copy in copies:
        assert zoo.info(copy).text == zoo.info(model).text
        np.testing.assert_allclose(zoo.embed(copy, texts), vectors, atol=1e-6)


def test_vocabulary_file_says_the_same(folder):
    """Without a tokenizer.json, vocab.txt and tokenizer_config.json give the same tokenization."""
    place, _ = folder
    whole = read_tokenizer(place)
    (place / "tokenizer.json").unlink()
    assert read_tokenizer(place) == whole
    (place / "tokenizer_config.json").write_text('{"do_lower_case": false, "unk_token": {"content": "[UNK]"}}')
    cased = read_tokenizer(place)
    assert (cased.lowercase, cased.strip_accents, cased.special[1]) == (False, False, "[UNK]")


def changed(name, change):
    """A function that changes a JSON file of a folder."""

    def apply(place):
        path = place / name
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return apply


FAULTS = {
    "another architecture": (changed("config.json", lambda c: c.update(model_type="roberta")), "model_type='roberta'"),
    "relative positions": (
        changed("config.json", lambda c: c.update(position_embedding_type="relative_key")), "with absolute positions"),
    "another tokenizer": (changed("tokenizer.json", lambda c: c["model"].update(type="BPE")), "with BPE, Bert"),
    "no start token": (changed("tokenizer.json", lambda c: c["model"].update(vocab={"[PAD]": 0})), "of which it lacks"),
    "ids with gaps": (changed("tokenizer.json", lambda c: c["model"]["vocab"].update(the=99)), "with ids with gaps"),
    "another pooling": (
        changed("1_Pooling/config.json", lambda c: c.update(pooling_mode_max_tokens=True)), "pooling_mode_max_tokens"),
    "another module": (changed("modules.json", lambda c: c.append({"type": "x.Dense", "path": ""})), "module Dense"),
    "another vocabulary": (changed("config.json", lambda c: c.update(vocab_size=20)), "of another shape"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "hint"), FAULTS.values(), ids=FAULTS)
def test_folder_that_says_something_else_is_refused(change, hint, folder):
    """One line says what the folder has."""
    place, _ = folder
    change(place)
    with pytest.raises(BadOption) as refused:
        zoo.get("bert_tiny", weights=place)
    assert hint in one_line(refused.value)


def test_contradicting_option_is_refused(folder):
    """An option that config.json states is no choice of the user."""
    with pytest.raises(BadOption, match=r"Received: attention_heads=4 for .*, made with attention_heads=2"):
        zoo.get("bert_tiny", weights=folder[0], attention_heads=4)


def test_strings_need_a_tokenization(folder):
    """Random weights know none; a single string is no list."""
    with pytest.raises(BadOption, match=r"model must know how strings become ids. Received: 'bert_tiny'"):
        zoo.embed(zoo.get("bert_tiny"), ["the cat"])
    model = zoo.get("bert_tiny", weights=folder[0])
    with pytest.raises(BadOption, match=r"texts must be a list of strings. Received: texts='the cat'"):
        zoo.embed(model, "the cat")
    assert zoo.embed(model, []).shape == (0, 64)
