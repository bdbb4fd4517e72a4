"""Strings of letters with a target string that a line of Python computes."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from itertools import islice

from training.data.dataset import Dataset, in_memory_split
from zoo.specs.text import SPECIAL, TextConfig

LETTERS = string.ascii_lowercase
LONGEST = 12
SIZES = {"train": 24_000, "validation": 500, "test": 1000}


def letters(name: str, target: Callable[[str], str], seed: int) -> Dataset:
    """Return a sequence-to-sequence dataset of strings with their target strings.

    Strings have 1 to 12 of the 26 letters, with uniform lengths, and are unique: 24,000 for training, 500 for
    validation and 1,000 for testing. There are few different strings of 1 or 2 letters.

    Args:
        name: the name of the dataset.
        target: returns the target of a string, of the same length.
        seed: seed of the strings.
    """
    found = _strings(seed)
    splits = {split: list(islice(found, size)) for split, size in SIZES.items()}
    parts = {split: in_memory_split(part, [target(text) for text in part]) for split, part in splits.items()}
    text = TextConfig((*SPECIAL, *LETTERS), split="character", clean=False)
    return Dataset(name, (), (), parts, text=text, task="generate")


def _strings(seed: int) -> Iterator[str]:
    """Yield unique strings without end."""
    draw, seen = random.Random(seed), set()
    while True:
        found = "".join(draw.choices(LETTERS, k=draw.randint(1, LONGEST)))
        if found not in seen:
            seen.add(found)
            yield found
