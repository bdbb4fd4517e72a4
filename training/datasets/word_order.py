"""Text classification: who did it? Generated sentences about animals; the label is the acting animal.

"The old fox was chased by the dog near the goat." is dog, and so is "It was the fox that the dog chased.", but "The dog
was chased by the fox." is fox: the words are not enough, their order and the voice of the verb decide. There are 10,000
training, 1,000 validation and 1,000 test sentences, all different, drawn from seed 0. Logistic regression on the counts
of words reaches 0.4350 on the test split.
"""

from __future__ import annotations

from itertools import islice

from training.data.dataset import Dataset, in_memory_split, register_dataset
from training.data.synthetic.sentences import ANIMALS, Sentence, sentences
from training.recipe.config import DataConfig
from zoo.specs.text import TextConfig

SIZES = {"train": 10_000, "validation": 1000, "test": 1000}


@register_dataset("word_order")
def word_order(_config: DataConfig) -> Dataset:
    """Return the sentences with the acting animals."""
    found = sentences(seed=0)
    splits = {name: list(islice(found, size)) for name, size in SIZES.items()}
    parts = {
        n: in_memory_split([_punctuated(s) for s in part], [ANIMALS.index(s.agent) for s in part])
        for n, part in splits.items()
    }
    return Dataset("word_order", ANIMALS, (), parts, text=TextConfig())


def _punctuated(sentence: Sentence) -> str:
    """Return a sentence with a capital letter and a full stop."""
    return " ".join(sentence.words).capitalize() + "."
