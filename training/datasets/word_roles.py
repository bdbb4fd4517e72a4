"""Who did what to whom, where and when? Generated sentences about animals, each word tagged with its role.

In "the old fox was chased by the dog" fox is the patient and dog the agent; in "the old fox chased the dog" it is the
other way round. The tags are other, agent, action, patient, place and time. 3,000 sentences train, 500 validate, 500
test; all differ, drawn from the seed 1. The tag that a word most often has is that of 0.6175 of the test split's words.
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
    """Return the sentences, each with a tag for each word."""
    found = sentences(seed=1)
    splits = {name: list(islice(found, size)) for name, size in SIZES.items()}
    parts = {
        n: in_memory_split([" ".join(s.words) for s in part], [" ".join(s.roles) for s in part]) for n, part in splits.items()
    }
    return Dataset("word_roles", ROLES, (), parts, text=TextConfig(), task="tag")
