"""A folder of transformers: its tokenizer and options travel with the weights, and strings become vectors."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from weights_cases import one_line, randomize

import zoo
from zoo.common.errors import BadOption, DataError
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


@pytest.mark.parametrize("file", ["", pytest.param("model.safetensors", marks=pytest.mark.slow)])
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


def publish(hub, name, place, **files):
    """Publish the files of a folder, with a license; `files` replace some."""
    found = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    changed = {f"{key}.json": json.dumps(content).encode() for key, content in files.items()}
    return hub.publish(name, {**found, **changed, "README.md": b"---\nlicense: apache-2.0\n---\n# Small\n"})


DEEP = {"num_hidden_layers": 2, "intermediate_size": 256, "max_position_embeddings": 32}


def test_repository_of_transformers(local_hub, folder):
    """The name of a repository alone gives architecture, length, options, tokenization, pooling and license."""
    place, expected = folder
    commit = publish(
        local_hub, "someone/small", place, config=CONFIG | DEEP, sentence_bert_config={"max_seq_length": 24}
    )
    model, texts = zoo.get("hf://someone/small"), ["The cats sat.", "the sitting dog", ""]
    info = zoo.info(model)
    assert (info.name, info.license, info.origin, info.revision) == (
        "bert_tiny",
        "apache-2.0",
        "hf://someone/small",
        commit,
    )
    assert model.input_shape == (None, 24)
    ids = np.pad(zoo.tokenize(model, texts), ((0, 0), (0, 8)))
    np.testing.assert_allclose(zoo.embed(model, texts), np.asarray(expected(ids)), atol=1e-6)
    assert zoo.spec("hf://someone/small") == zoo.spec("bert_tiny")
    with local_hub.down():
        again = zoo.get("bert_tiny", weights="hf://someone/small")
        np.testing.assert_array_equal(zoo.embed(again, texts), zoo.embed(model, texts))


def test_folder_alone(folder):
    """The path of a folder is a name as well; without a stated length it is the model's."""
    place, expected = folder
    (place / "config.json").write_text(json.dumps(CONFIG | DEEP))
    ids = np.array([[2, 5, 6, 3] + [0] * 28])
    for name in (place, str(place)):
        np.testing.assert_allclose(zoo.get(name)(ids), expected(ids), atol=1e-6)


def test_size_that_no_model_has(folder, tmp_path):
    """The nearest model of the kind is built with the sizes of the weights."""
    from safetensors.numpy import save_file

    sizes = {"width": 96, "depth": 3, "hidden": 160}
    given = {"vocabulary": CONFIG["vocab_size"], "attention_heads": 2, "epsilon": 1e-6, **sizes}
    expected, (place, _) = randomize(zoo.get("bert_tiny", **given)), folder
    save_file(names_of_transformers(expected), place / "model.safetensors")
    config = {"hidden_size": 96, "num_hidden_layers": 3, "intermediate_size": 160, "max_position_embeddings": 32}
    (place / "config.json").write_text(json.dumps(CONFIG | config))
    ids = np.array([[2, 5, 6, 3] + [0] * 28])
    model = zoo.get(place)
    np.testing.assert_allclose(model(ids), expected(ids), atol=1e-6)
    assert sizes.items() <= zoo.info(model).options.items()


def test_classifier(local_hub, folder):
    """The classes and their names are those of the config; numbered ones have no names."""
    place, _ = folder
    labels = {"0": "bad", "1": "good", "2": "other"}
    head = {"architectures": ["BertForSequenceClassification"], "id2label": labels}
    from safetensors.numpy import load_file, save_file

    state = load_file(place / "model.safetensors")
    state |= {
        f"classifier.{key}": np.ones((3, 64)[: 2 if key == "weight" else 1], "float32") for key in ("weight", "bias")
    }
    state |= {"pooler.dense.weight": np.eye(64, dtype="float32"), "pooler.dense.bias": np.zeros(64, "float32")}
    save_file(state, place / "model.safetensors")
    (place / "modules.json").unlink()
    publish(local_hub, "someone/sentiment", place, config=CONFIG | DEEP | head)
    model = zoo.get("hf://someone/sentiment")
    assert (model.output_shape, zoo.info(model).labels) == ((None, 3), ("bad", "good", "other"))
    np.testing.assert_array_equal(model.get_layer("logits").kernel, np.ones((64, 3)))
    numbered = {"id2label": {str(i): f"LABEL_{i}" for i in range(3)}}
    publish(local_hub, "someone/numbered", place, config=CONFIG | DEEP | head | numbered)
    assert zoo.info(zoo.get("hf://someone/numbered")).labels is None


def test_repository_of_another_kind(local_hub, folder):
    """One line names the architecture; weights downloaded by hand without their folder are refused too."""
    place, _ = folder
    publish(local_hub, "someone/roberta", place, config={"model_type": "roberta"})
    with pytest.raises(DataError, match=r"Received: model='hf://someone/roberta'.*model_type='roberta'"):
        zoo.get("hf://someone/roberta")
    publish(local_hub, "someone/by_hand", place, config=CONFIG | DEEP)
    home = Path(os.environ["ZOO_HOME"]) / "someone"
    home.mkdir(parents=True)
    for name, suffix in (("model.safetensors", ".safetensors"), ("config.json", ".json")):
        shutil.copy(place / name, home / f"by_hand{suffix}")
    with pytest.raises(DataError, match="must be in a folder"):
        zoo.get("hf://someone/by_hand")
