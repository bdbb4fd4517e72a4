"""Wine: 178 wines of three cultivars by thirteen chemical measures, from scikit-learn, with no download.

Forina et al., UCI 1991. Divided 80 : 10 : 10 by a fixed shuffle, each cultivar alike."""

from __future__ import annotations

from training.data.dataset import Dataset, register
from training.data.rows import table_dataset
from training.datasets._bundled import rows_of
from training.recipe.config import DataConfig


@register("wine")
def wine(config: DataConfig) -> Dataset:
    """Return the wines; their cultivars are the classes."""
    from sklearn.datasets import load_wine

    return table_dataset("wine", *rows_of(load_wine, "cultivar"), config, "classify")
