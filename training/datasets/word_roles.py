"""Tagging: who did what to whom, where and when? Generated sentences about animals with a role for each word.

In "the old fox was chased by the dog" fox is the patient and dog the agent; in "the old fox chased the dog" it is the
other way round. The tags are other, agent, action, patient, place and time. There are 3,000 training, 500
validation and 500 test sentences, all different, drawn from seed 1. Predicting the most frequent tag of each word is
right for 0.6175 of the words of the test split.
"""

from __future__ import annotations

from itertools import islice

from training.data.dataset import Dataset, in_memory_split, register_dataset
from training.data.synthetic.sentences import ROLES, sentences
from training.recipe.config import DataConfig
from zoo.specs.text import TextConfig

SIZES = {"train": 3000, "validation": 500, "test": 500}


@register_dataset("word_roles")
def word_roles(_config: DataConfig) -> Dataset:
    """Return the sentences with a tag for each word."""
    found = sentences(seed=1)
    splits = {name: list(islice(found, size)) for name, size in SIZES.items()}
    parts = {
        n: in_memory_split([" ".join(s.words) for s in part], [" ".join(s.roles) for s in part])
        for n, part in splits.items()
    }
    return Dataset("word_roles", ROLES, (), parts, text=TextConfig(), task="tag")
