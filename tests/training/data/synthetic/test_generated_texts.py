"""Generated texts: always the same, disjoint splits, and not solved by counting words."""

from __future__ import annotations

import collections
import functools

import numpy as np
import pytest

from training import DataConfig
from training.data.readers.loading import load_dataset
from training.data.tokenization import tokens


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
