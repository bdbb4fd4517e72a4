"""Letters to write backwards: "abcd" becomes "dcba".

Strings of 1 to 12 of the 26 letters, each length as likely as another, each string once, drawn from the seed 2: 24,000
train, 500 validate, 1,000 test. What is short is soon used up, so that there are few of 1 or 2 letters.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from itertools import islice

from training._configs import DataConfig
from training._data import Dataset, listed, register
from zoo._text import SPECIAL, Text

LETTERS = string.ascii_lowercase
LONGEST = 12
SIZES = {"train": 24_000, "validation": 500, "test": 1000}


@register("reverse")
def reverse(_config: DataConfig) -> Dataset:
    """Return the strings, each with its mirror image to write."""
    found = _strings(seed=2)
    splits = {name: list(islice(found, size)) for name, size in SIZES.items()}
    parts = {name: listed(part, [text[::-1] for text in part]) for name, part in splits.items()}
    text = Text((*SPECIAL, *LETTERS), split="character", clean=False)
    return Dataset("reverse", (), (), parts, text=text, task="generate")


def _strings(seed: int) -> Iterator[str]:
    """Yield strings without end, each once."""
    draw, seen = random.Random(seed), set()
    while True:
        found = "".join(draw.choices(LETTERS, k=draw.randint(1, LONGEST)))
        if found not in seen:
            seen.add(found)
            yield found
