"""Text: tokens and back, fitted and saved vocabularies, batches by task, generated data, refused options."""

from __future__ import annotations

import collections
import functools
import json
import shutil

import numpy as np
import pytest

import training
import training.data.pipeline.pipeline as pipeline_module
import zoo
from training import AugmentConfig, DataConfig, Dataset, ModelConfig, Recipe, Run, TextConfig, register_dataset
from training.data.dataset import datasets, in_memory_split
from training.data.pipeline.opening import open_pipeline
from training.data.readers.loading import load_dataset
from training.data.tokenization import build_vocabulary, detokenize, tokenizer, tokens
from training.learning.evaluation import open_data
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, DataError, RunError
from zoo.specs.text import END, PADDING, SPECIAL, START, UNKNOWN

CATS = TextConfig((*SPECIAL, "the", "cat", "sat", "größe"))
LETTERS = TextConfig((*SPECIAL, *"abc "), split="character", clean=False)
MODELS = {"classify": "encoder_tiny", "tag": "tagger_tiny", "generate": "transformer_tiny"}
# What each task has of small data: texts and labels by split.
SMALL = {
    "classify": {
        "train": (["a b b c", "b a", "c b b", "a"], [0, 1, 1, 0]),
        "validation": (["b zebra", "zebra zebra a"], [1, 0]),
        "test": (["c", "a b", "b c"], [0, 1, 0]),
    },
    "tag": {
        "train": (["a b b c", "b a", "c b b", "a"], ["x y y x", "y x", "x y y", "x"]),
        "validation": (["b zebra", "zebra zebra a"], ["y x", "x y x"]),
        "test": (["c", "a b", "b c"], ["x", "x y", "y x"]),
    },
    "generate": {
        "train": (["a b b c", "b a", "c b b", "a"], ["c b b a", "a b", "d d", "a"]),
        "validation": (["b zebra", "zebra zebra a"], ["zebra b", "a zebra zebra"]),
        "test": (["c", "a b", "b c"], ["c", "b a", "c b"]),
    },
}
LABELS = {"classify": ("no", "yes"), "tag": ("x", "y"), "generate": ()}


def one_line(error):
    """Return the message, and check that it has one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def put(task, text=None, **splits):
    """Register small data of a task as "test_text"."""
    found = {name: in_memory_split(*lists) for name, lists in {**SMALL[task], **splits}.items()}
    datasets._entries.pop("test_text", None)
    made = Dataset("test_text", LABELS[task], (), found, text=text or TextConfig(), task=task)
    register_dataset("test_text")(lambda _: made)


def remove():
    """Unregister the small data."""
    datasets._entries.pop("test_text", None)
    datasets._origins.pop("test_text", None)


@pytest.fixture
def data():
    """Register small data of a task; a second call changes its content."""
    yield put
    remove()


def served(task, text=None, model=None, **config):
    """Return the pipeline of the small data."""
    model = model or MODELS[task]
    config = {"length": (5,) if task != "generate" else (4, 5), "batch_size": 4, **config}
    return open_pipeline(Recipe("test", ModelConfig(model), DataConfig("test_text", **config)), zoo.spec(model), text)


def arrays(batches):
    """Return all batches as lists of arrays in a fixed order."""
    import tensorflow as tf

    return [[np.asarray(t) for t in tf.nest.flatten(batch)] for batch in batches]


def same(one, two):
    """Return whether two lists of batches are equal to the bit."""
    return len(one) == len(two) and all(
        len(a) == len(b) and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(one, two, strict=True)
    )


def test_tokens_become_their_ids():
    """Known tokens become their ids, others UNKNOWN; short texts are padded, long ones truncated."""
    ids = tokenizer(CATS, 4)(["the cat sat", "dog", "the the cat cat sat sat", "  cat   the "]).numpy()
    assert ids.dtype == np.int32
    assert ids.tolist() == [
        [4, 5, 6, PADDING],
        [UNKNOWN, PADDING, PADDING, PADDING],
        [4, 4, 5, 5],
        [5, 4, PADDING, PADDING],
    ]


def test_cleaning_lowers_and_strips():
    """Case and punctuation do not matter, also beyond ASCII; without cleaning they do."""
    assert tokenizer(CATS, 3)(["The, CAT! «GRÖSSE» GRÖßE…"]).numpy().tolist() == [[4, 5, UNKNOWN]]
    assert tokenizer(CATS, 4)(["«The» cat's GRÖßE…"]).numpy().tolist() == [[4, UNKNOWN, 7, PADDING]]
    plain = TextConfig(CATS.vocabulary, clean=False)
    assert tokenizer(plain, 3)(["The cat. cat"]).numpy().tolist() == [[UNKNOWN, UNKNOWN, 5]]


def test_characters_are_tokens():
    """In a split by character, white space is a token, and each character is one token in any number of bytes."""
    assert tokenizer(LETTERS, 6)(["ab c", "aßa"]).numpy().tolist() == [[4, 5, 7, 6, 0, 0], [4, UNKNOWN, 4, 0, 0, 0]]


def test_names_of_special_tokens_in_a_text_are_no_special_tokens():
    """A text that contains [END] does not end a sequence."""
    plain = TextConfig(CATS.vocabulary, clean=False)
    assert tokenizer(plain, 4)(["[START] cat [END] [UNK]"]).numpy().tolist() == [[UNKNOWN, 5, UNKNOWN, UNKNOWN]]


def test_ids_are_those_of_keras():
    """On ASCII, ids equal those of keras.layers.TextVectorization with the same vocabulary."""
    import keras

    texts = ["The cat, sat.", "a-b THE! cat's", "sat sat sat sat sat", "x"]
    theirs = keras.layers.TextVectorization(vocabulary=list(CATS.vocabulary[2:]), output_sequence_length=4)
    np.testing.assert_array_equal(tokenizer(CATS, 4)(texts), theirs(texts))


@pytest.mark.parametrize(("text", "sentences"), [(CATS, ["the cat sat", "cat", ""]), (LETTERS, ["a b", "cab", ""])])
def test_detokenizing_restores_the_text(text, sentences):
    """Ids become their text again."""
    assert [s.decode() for s in detokenize(text, tokenizer(text, 6)(sentences)).numpy()] == sentences


def test_words_stop_at_the_end():
    """Tokens after END and special tokens are not in the text."""
    ids = [[START, 4, UNKNOWN, 5, END, 6], [5, PADDING, 6, 4, 4, 4], [END, 4, 4, 4, 4, 4]]
    texts = [s.decode() for s in detokenize(CATS, np.array(ids, "int32")).numpy()]
    assert texts == ["the cat", "cat sat the the the", ""]


def test_tokenizer_lives_in_a_saved_model(tmp_path):
    """A SavedModel without Python code takes and returns strings."""
    import tensorflow as tf

    module = tf.Module()
    module.tokenizer = tokenizer(CATS, 5)
    signature = [tf.TensorSpec((None,), tf.string)]
    module.ids = tf.function(lambda texts: {"ids": module.tokenizer(texts)}, input_signature=signature)
    module.back = tf.function(
        lambda texts: {"texts": detokenize(CATS, module.tokenizer(texts))}, input_signature=signature
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), {"ids": module.ids, "back": module.back})
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    texts = tf.constant(["The cat!", "sat dog cat"])
    np.testing.assert_array_equal(loaded.signatures["ids"](texts)["ids"], tokenizer(CATS, 5)(texts))
    assert loaded.signatures["back"](texts)["texts"].numpy().tolist() == [b"the cat", b"sat cat"]


def test_vocabulary_is_by_frequency_then_alphabet():
    """The most frequent token comes first, equal counts in alphabetical order; tokens beyond the limit are left out."""
    import tensorflow as tf

    examples = tf.data.Dataset.from_tensor_slices(["b a", "C. b", "a d b", "e"])
    assert build_vocabulary(TextConfig(), examples, 100).vocabulary == (*SPECIAL, "b", "a", "c", "d", "e")
    assert build_vocabulary(TextConfig(), examples, 6).vocabulary == (*SPECIAL, "b", "a")
    spelt = tf.data.Dataset.from_tensor_slices(["[UNK] [START] x"])
    assert build_vocabulary(TextConfig(clean=False), spelt, 100).vocabulary == (*SPECIAL, "x")
    for most in (1, 4):
        with pytest.raises(BadOption, match="vocabulary") as error:
            build_vocabulary(TextConfig(), examples, most)
        one_line(error)


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on the small texts, with their words in the training split."""
    put("classify")
    config = DataConfig("test_text", batch_size=4, length=(5,))
    recipe = Recipe("test", ModelConfig("encoder_tiny"), config, epochs=1, precision="float32", strategy="one")
    recipe = recipe.override(**{"log.every": 0, "log.misclassified": 0})
    yield training.train(recipe, run=tmp_path_factory.mktemp("runs") / "run")
    remove()


@pytest.fixture
def text_run(trained, data, tmp_path):
    """A copy of the finished run, and its data."""
    data("classify")
    shutil.copytree(trained.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


def test_run_saves_its_vocabulary(text_run, data):
    """The run uses its saved text config whatever the data is now; a new vocabulary would have other ids."""
    assert Run.open(text_run.path).text() == TextConfig((*SPECIAL, "b", "a", "c"))
    assert json.loads((text_run.path / "text.json").read_text())["vocabulary"] == [*SPECIAL, "b", "a", "c"]
    before, evaluated = arrays(open_data(text_run).evaluate("test")), training.evaluate(text_run)
    data("classify", train=(["zebra c c c c", "b", "b", "zebra"], [0, 1, 1, 0]))
    assert same(arrays(open_data(text_run).evaluate("test")), before)
    assert training.evaluate(text_run) == evaluated
    spec = zoo.spec("encoder_tiny")
    assert not same(arrays(open_pipeline(text_run.recipe, spec).evaluate("test")), before)


def test_resume_uses_the_saved_vocabulary(text_run, data):
    """A resumed run has the ids that it started with."""
    (text_run.path / "done.json").unlink()
    data("classify", train=(["zebra c c c c", "b", "b", "b"], [0, 1, 1, 1]))
    assert training.resume(text_run.path).text() == TextConfig((*SPECIAL, "b", "a", "c"))
    assert training.evaluate(text_run).examples == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "without text.json"), (b"{", "readable JSON"), (b"[]", r"text\.json: the content must be a mapping")],
)
def test_run_without_its_vocabulary_is_refused(text_run, content, message):
    """A missing or damaged vocabulary is never replaced silently."""
    path = text_run.path / "text.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(RunError, match=message) as error:
        training.evaluate(text_run.path)
    one_line(error)


def test_images_have_no_vocabulary(digits_run):
    """A run on images has no text config."""
    assert digits_run.text() is None
    assert digits_run.result()["task"] == "classify"


@functools.cache
def pulled(name):
    """Return (texts, labels) of each split of generated data, and the dataset."""
    dataset = load_dataset(DataConfig(name))
    # One at a time, they would take ten times as long.
    splits = {n: list(s.examples.batch(s.count).as_numpy_iterator()) for n, s in dataset.splits.items()}
    found = {n: tuple(column.tolist() for column in whole) for n, (whole,) in splits.items()}
    assert {n: s.count for n, s in dataset.splits.items()} == {n: len(texts) for n, (texts, _) in found.items()}
    return found, dataset


@pytest.mark.parametrize("name", ["word_order", "word_roles", "reverse"])
def test_generated_data_is_deterministic_and_its_splits_are_disjoint(name):
    """The texts are always the same, without duplicates in or across splits."""
    found, dataset = pulled(name)
    assert pulled.__wrapped__(name)[0] == found
    texts = [text for split in found.values() for text in split[0]]
    assert len(texts) == len({text.lower() for text in texts})
    assert set(found) == {"train", "validation", "test"}
    assert dataset.preprocessing is None


def test_bag_of_words_fails_where_order_decides():
    """Logistic regression on word counts stays below 0.5 where an encoder reaches 0.95."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    found, dataset = pulled("word_order")
    texts = {name: [text.decode() for text in split[0]] for name, split in found.items()}
    counts = CountVectorizer().fit(texts["train"])
    model = LogisticRegression(max_iter=2000).fit(counts.transform(texts["train"]), found["train"][1])
    reached = model.score(counts.transform(texts["test"]), found["test"][1])
    assert reached < 0.5
    stated = importlib_doc("training.datasets.word_order")
    assert f"{reached:.4f}" in stated
    fraction = collections.Counter(found["test"][1]).most_common(1)[0][1] / len(found["test"][1])
    assert fraction < 2 / len(dataset.labels)


def test_word_alone_does_not_determine_its_role():
    """The most frequent tag of each word is right for no more than its dataset documents."""
    found, _ = pulled("word_roles")
    seen = collections.defaultdict(collections.Counter)
    pairs = {
        n: [p for x, y in zip(*s, strict=True) for p in zip(x.split(), y.split(), strict=True)]
        for n, s in found.items()
    }
    for word, tag in pairs["train"]:
        seen[word][tag] += 1
    reached = np.mean([seen[word].most_common(1)[0][0] == tag for word, tag in pairs["test"]])
    assert reached < 0.65
    assert f"{reached:.4f}" in importlib_doc("training.datasets.word_roles")


def test_reverse_is_reversed():
    """Each label is its text backwards, with up to 12 letters."""
    found, dataset = pulled("reverse")
    assert all(y == x[::-1] and 1 <= len(x) <= 12 for split in found.values() for x, y in zip(*split, strict=True))
    letters = tokens(dataset.text, [b"".join(found["train"][0][:100])])
    assert {token.decode() for token in letters.flat_values.numpy()} == set(dataset.text.vocabulary[4:])


def importlib_doc(name):
    """Return the docstring of a module in one line."""
    import importlib

    return " ".join(importlib.import_module(name).__doc__.split())


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
