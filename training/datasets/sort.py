"""Letters to write in the order of the alphabet: "banana" becomes "aaabnn". The strings are drawn from the seed 3."""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.synthetic.letters import letters
from training.recipe.config import DataConfig


@register_dataset("sort")
def sort(_config: DataConfig) -> Dataset:
    """Return the strings, each with its letters in order to write."""
    return letters("sort", lambda text: "".join(sorted(text)), seed=3)
