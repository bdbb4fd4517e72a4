"""Breast cancer: 569 tumours, malignant or benign, by thirty measures of nuclei, from scikit-learn, with no download.

Wolberg, Street, Mangasarian, "Breast Cancer Wisconsin (Diagnostic)", UCI 1995. Split 80 : 10 : 10 by a fixed
stratified shuffle."""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.sklearn_tables import sklearn_rows
from training.data.readers.tables import table_dataset
from training.recipe.config import DataConfig


@register_dataset("breast_cancer")
def breast_cancer(config: DataConfig) -> Dataset:
    """Return the tumours; the diagnoses are the classes."""
    from sklearn.datasets import load_breast_cancer

    return table_dataset("breast_cancer", sklearn_rows(load_breast_cancer, "diagnosis"), config, "classify")
