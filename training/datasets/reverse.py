"""Sequence to sequence: reverse a string, "abcd" to "dcba". The strings are drawn from seed 2."""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.synthetic.letters import letters
from training.recipe.config import DataConfig


@register_dataset("reverse")
def reverse(_config: DataConfig) -> Dataset:
    """Return the strings with their reversed strings."""
    return letters("reverse", lambda text: text[::-1], seed=2)
