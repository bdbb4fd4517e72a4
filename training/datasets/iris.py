"""Iris: 150 flowers of three species by four measures in cm, from scikit-learn, with no download.

Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7, 1936. Split 80 : 10 : 10 by a
fixed stratified shuffle: 120, 15 and 15."""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.sklearn_tables import sklearn_rows
from training.data.readers.tables import table_dataset
from training.recipe.config import DataConfig


@register_dataset("iris")
def iris(config: DataConfig) -> Dataset:
    """Return the flowers; their species are the classes."""
    from sklearn.datasets import load_iris

    return table_dataset("iris", sklearn_rows(load_iris, "species"), config, "classify")
