"""Sequence to sequence: sort the letters of a string, "banana" to "aaabnn". The strings are drawn from seed 3."""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.synthetic.letters import letters
from training.recipe.config import DataConfig


@register_dataset("sort")
def sort(_config: DataConfig) -> Dataset:
    """Return the strings with their sorted strings."""
    return letters("sort", lambda text: "".join(sorted(text)), seed=3)
