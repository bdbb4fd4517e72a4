"""Wine: 178 wines of three cultivars by thirteen chemical measures, from scikit-learn, with no download.

Forina et al., UCI 1991. Split 80 : 10 : 10 by a fixed stratified shuffle."""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.sklearn_tables import sklearn_rows
from training.data.readers.tables import table_dataset
from training.recipe.config import DataConfig


@register_dataset("wine")
def wine(config: DataConfig) -> Dataset:
    """Return the wines; their cultivars are the classes."""
    from sklearn.datasets import load_wine

    return table_dataset("wine", sklearn_rows(load_wine, "cultivar"), config, "classify")
