"""Letters to write in the order of the alphabet: "banana" becomes "aaabnn". The strings are drawn from the seed 3."""

from __future__ import annotations

from training._configs import DataConfig
from training._data import Dataset, register
from training.datasets._letters import letters


@register("sort")
def sort(_config: DataConfig) -> Dataset:
    """Return the strings, each with its letters in order to write."""
    return letters("sort", lambda text: "".join(sorted(text)), seed=3)
