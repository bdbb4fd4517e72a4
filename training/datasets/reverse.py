"""Letters to write backwards: "abcd" becomes "dcba". The strings are drawn from the seed 2."""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.synthetic.letters import letters
from training.recipe.config import DataConfig


@register_dataset("reverse")
def reverse(_config: DataConfig) -> Dataset:
    """Return the strings, each with its mirror image to write."""
    return letters("reverse", lambda text: text[::-1], seed=2)
