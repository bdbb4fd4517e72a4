"""Strings of letters and what is to be written from them: sequences whose right answer a line of Python gives."""

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


def letters(name: str, answer: Callable[[str], str], seed: int) -> Dataset:
    """Return strings, each with its answer to write.

    1 to 12 of the 26 letters, each length as likely as another, each string once: 24,000 train, 500 validate, 1,000
    test. What is short is soon used up, so that there are few of 1 or 2 letters.

    Args:
        name: what the dataset is called.
        answer: returns what is to be written, of the same length.
        seed: of the strings.
    """
    found = _strings(seed)
    splits = {split: list(islice(found, size)) for split, size in SIZES.items()}
    parts = {split: in_memory_split(part, [answer(text) for text in part]) for split, part in splits.items()}
    text = TextConfig((*SPECIAL, *LETTERS), split="character", clean=False)
    return Dataset(name, (), (), parts, text=text, task="generate")


def _strings(seed: int) -> Iterator[str]:
    """Yield strings without end, each once."""
    draw, seen = random.Random(seed), set()
    while True:
        found = "".join(draw.choices(LETTERS, k=draw.randint(1, LONGEST)))
        if found not in seen:
            seen.add(found)
            yield found
