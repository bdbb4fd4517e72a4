"""Batches of texts by task, in memory and streamed, their vocabulary and length, and refused texts and options."""

from __future__ import annotations

import numpy as np
import pytest
from loaded_data import one_line
from small_texts import CATS, MODELS, arrays, same, served

import training.data.pipeline.pipeline as pipeline_module
import zoo
from training import AugmentConfig, DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, DataError
from zoo.specs.text import END, SPECIAL, START


@pytest.mark.parametrize("task", MODELS)
def test_vocabulary_is_of_the_training_split_only(data, task):
    """Words of other splits are unknown; of pairs, both texts count."""
    data(task)
    text = served(task).text
    assert text.vocabulary == (*SPECIAL, *("b", "a", "c", "d")[: 4 if task == "generate" else 3])
    assert served(task, vocabulary=5).text.vocabulary == (*SPECIAL, "b")


def test_batches_of_texts_to_classify(data):
    """Ids and one-hot labels."""
    data("classify")
    (x, y), (raw, labels) = arrays(served("classify").evaluate("test"))[0], served("classify").raw("test", 10)
    assert x.tolist() == [[6, 0, 0, 0, 0], [5, 4, 0, 0, 0], [4, 6, 0, 0, 0]]
    assert (x.dtype, y.dtype, y.tolist()) == (np.int32, np.float32, [[1, 0], [0, 1], [1, 0]])
    assert (raw.tolist(), raw.dtype) == (x.tolist(), np.int32)
    assert (labels.tolist(), labels.dtype) == ([0, 1, 0], np.int64)


def test_batches_of_texts_to_tag(data):
    """Each token has a row, all zeros where there is none; a raw label is -1 there."""
    data("tag")
    (x, y), (raw, labels) = arrays(served("tag", length=(3,)).evaluate("test"))[0], served("tag").raw("test", 2)
    assert x.tolist() == [[6, 0, 0], [5, 4, 0], [4, 6, 0]]
    assert (y.dtype, y.shape) == (np.float32, (3, 3, 2))
    assert y[1].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert raw.tolist() == [[6, 0, 0, 0, 0], [4, 6, 0, 0, 0]]
    assert (labels.tolist(), labels.dtype) == ([[0, -1, -1, -1, -1], [1, 0, -1, -1, -1]], np.int64)


def test_tags_are_cut_with_their_words(data):
    """A truncated sentence also loses its last tags."""
    data("tag")
    _, labels = served("tag", length=(2,)).raw("train", 10)
    assert labels.tolist() == [[0, 1], [1, 0], [0, 1], [0, -1]]


def test_batches_of_texts_to_generate(data):
    """The decoder gets START and the earlier tokens, and predicts the next token, at last END."""
    data("generate")
    pipe = served("generate")
    source, target, labels = arrays(pipe.evaluate("test"))[0]
    assert source.tolist() == [[6, 0, 0, 0], [5, 4, 0, 0], [4, 6, 0, 0]]
    assert target.tolist() == [[START, 6, 0, 0, 0], [START, 4, 5, 0, 0], [START, 6, 4, 0, 0]]
    assert labels.tolist() == [[6, END, 0, 0, 0], [4, 5, END, 0, 0], [6, 4, END, 0, 0]]
    assert {a.dtype for a in (source, target, labels)} == {np.dtype("int32")}
    inputs, wanted = pipe.raw("test", 10)
    assert same([[inputs["source"], inputs["target"], wanted]], [[source, target, labels]])


def test_target_is_truncated_before_its_end(data):
    """A truncated target still has START and END; a source is only truncated."""
    data("generate")
    source, target, labels = arrays(served("generate", length=(2, 3)).evaluate("train"))[0]
    assert source[0].tolist() == [5, 4]
    assert target[0].tolist() == [START, 6, 4]
    assert labels[0].tolist() == [6, 4, END]


@pytest.mark.parametrize(
    "task", ["tag", *(pytest.param(task, marks=pytest.mark.slow) for task in ("classify", "generate"))]
)
def test_memory_and_streaming_serve_the_same_texts(data, task, monkeypatch):
    """Texts from memory and streamed texts are the same; so are raw ones, and their strings."""
    data(task)
    import tensorflow as tf

    def found():
        pipe = served(task, batch_size=2)
        raw = tf.nest.flatten(pipe.raw("validation", 10))
        return [*arrays(pipe.evaluate("test")), *arrays(pipe.evaluate("train")), raw], pipe.strings("test", 2), pipe

    in_memory = found()
    monkeypatch.setattr(pipeline_module, "MEMORY", 0)
    streamed = found()
    assert same(in_memory[0], streamed[0])
    assert in_memory[1] == streamed[1] == ["c", "b c"]
    order = arrays(streamed[2].train(0))
    assert same(arrays(streamed[2].train(0, 1)), order[1:])


def test_length_and_vocabulary_of_the_model_are_the_last_resort(data):
    """Without data.length and data.vocabulary, the model's own values apply."""
    data("generate")
    pipe = served("generate", length=())
    assert pipe.shape == zoo.spec("transformer_tiny").input_shape
    assert len(pipe.text.vocabulary) <= zoo.spec("transformer_tiny").vocabulary


def test_vocabulary_of_the_data_is_taken_as_it_is(data):
    """The vocabulary of a dataset stays as it is, and cannot be truncated."""
    data("classify", text=CATS)
    assert served("classify").text == CATS
    with pytest.raises(BadOption, match="defines its own vocabulary") as error:
        served("classify", vocabulary=5)
    one_line(error)


def test_text_without_tokens_is_unknown(data):
    """A text of punctuation or of nothing is the unknown token, never padding alone."""
    data("classify", test=(["a", " ... ", ""], [0, 1, 0]))
    ids = served("classify").raw("test", 3)[0]
    assert [row[row > 0].tolist() for row in ids[1:]] == [[1], [1]]


@pytest.mark.parametrize(
    ("task", "splits", "message"),
    [
        ("generate", {"train": (["a", "", "b"], ["a", "b", "c"])}, "example 1 .*train split without any: ''"),
        ("tag", {"train": (["a b c", "a b"], ["x y x", "x"])}, "example 1 .*with 1 for 2 tokens: 'a b'"),
        ("tag", {"test": (["a - c"], ["x y x"])}, "example 0 .*with 3 for 2 tokens: 'a - c'"),
        ("tag", {"validation": (["a b"], ["x z"])}, r"the tags x, y.*'z'.*validation"),
    ],
)
def test_bad_texts_are_refused(data, task, splits, message):
    """Text without tokens, and tags that do not match their words, are reported with their place, before training."""
    data(task, **splits)
    with pytest.raises(DataError, match=message) as error:
        served(task)
    one_line(error)


@pytest.mark.parametrize(
    ("task", "length"),
    [("classify", (0,)), ("classify", (5, 5)), ("tag", (-1,)), ("generate", (5,)), ("generate", (5, 1))],
)
def test_bad_length_is_refused(data, task, length):
    """A length is one number, or two for generated text, and has room for a token."""
    data(task)
    with pytest.raises(BadOption, match=r"data\.length must be \[") as error:
        served(task, length=length)
    one_line(error)


@pytest.mark.parametrize(
    "option",
    [
        {"augment": AugmentConfig(flip=True)},
        {"image_size": (8, 8)},
        {"channels": 1},
        {"preprocessing": PreprocessingConfig()},
    ],
)
def test_options_of_images_are_refused_for_texts(data, option):
    """No option is ignored silently."""
    data("classify")
    with pytest.raises(BadOption, match=rf"data\.{next(iter(option))} applies to images.*text") as error:
        served("classify", **option)
    one_line(error)


@pytest.mark.parametrize("option", [{"length": (8,)}, {"vocabulary": 100}])
def test_options_of_texts_are_refused_for_images(option):
    """Images have no length in tokens and no vocabulary."""
    recipe = Recipe("test", ModelConfig("resnet_tiny"), DataConfig("digits", **option))
    with pytest.raises(BadOption, match=rf"data\.{next(iter(option))} applies to texts"):
        open_pipeline(recipe, zoo.spec("resnet_tiny"))


def test_images_have_no_strings():
    """A request for strings of images is refused."""
    recipe = Recipe("test", ModelConfig("resnet_tiny"), DataConfig("digits"))
    with pytest.raises(BadOption, match="Expected a dataset of texts"):
        open_pipeline(recipe, zoo.spec("resnet_tiny")).strings("test", 3)


def test_word_pieces_are_learned_from_the_training_texts(tmp_path):
    """Words that no training text has become pieces of those that it has, or are unknown."""
    words = ["playing", "player", "played", "walking", "walker", "walked"]
    lines = [f"{words[i % 6]} {words[(i + 1) % 6]},{'ab'[i % 2]}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    options = {"path": str(tmp_path / "t.csv"), "length": (8,), "vocabulary": 60, "tokenizer": "wordpiece"}
    recipe = Recipe("t", ModelConfig("encoder_tiny"), DataConfig("text_table", **options))
    pipeline = open_pipeline(recipe, zoo.spec("encoder_tiny"))
    text = pipeline.text
    assert (text.split, text.vocabulary[:4]) == ("wordpiece", ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    assert len(text.vocabulary) <= 60
    from training.data.tokenization import tokenizer

    ids = tokenizer(text, 8)(["played talker", "Zebra"]).numpy()
    pieces = [[text.vocabulary[i] for i in row if i] for row in ids]
    assert pieces[0][:2] == ["[CLS]", "played"]
    assert pieces[1] == ["[CLS]", "[UNK]", "[SEP]"]


def test_zero_bytes_in_words_do_not_stop(tmp_path):
    """A zero byte in a text is white space."""
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *(f"a\0 a b{i % 3},{'xy'[i % 2]}" for i in range(60))]))
    data = DataConfig("text_table", path=str(tmp_path / "t.csv"), length=(5,), encoding="utf-8")
    pipeline = open_pipeline(Recipe("t", ModelConfig("encoder_tiny"), data), zoo.spec("encoder_tiny"))
    assert set(pipeline.text.words) == {"a", "b0", "b1", "b2"}


def test_truncated_texts_are_said(tmp_path):
    """The fraction, the limit and the longest text."""
    lines = [f"{'word ' * (3 if i % 4 else 9)},{'ab'[i % 2]}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    for length, count in (((5,), 1), ((9,), 0)):
        data = DataConfig("text_table", path=str(tmp_path / "t.csv"), length=length)
        pipeline = open_pipeline(Recipe("t", ModelConfig("encoder_tiny"), data), zoo.spec("encoder_tiny"))
        found = [note for note in pipeline.dataset.notes if "longer than 5 tokens and are truncated" in note]
        assert len(found) == count
    assert sum(len(line.split(",")[0].split()) > 5 for line in lines) / 80 == 0.25
