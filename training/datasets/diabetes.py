"""Diabetes: disease progression of 442 patients after a year, by ten measures, from scikit-learn, with no download.

Efron, Hastie, Johnstone, Tibshirani, "Least angle regression", Annals of Statistics 32, 2004. The target, 25 to 346,
is a regression target; its standard deviation is 77. Split 80 : 10 : 10 by a fixed shuffle: 354, 44 and 44.
"""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.sklearn_tables import sklearn_rows
from training.data.readers.tables import table_dataset
from training.recipe.config import DataConfig


@register_dataset("diabetes")
def diabetes(config: DataConfig) -> Dataset:
    """Return the patients; the progression of the disease is the target."""
    from sklearn.datasets import load_diabetes

    return table_dataset("diabetes", sklearn_rows(load_diabetes, "progression"), config, "regress")
