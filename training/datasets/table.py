"""A table of your own: a CSV or Parquet file with a column to predict.

The target is the last column, or `data.target`; `data.columns` names the feature columns, all others by default. A
target of texts or a few different whole numbers is a class, other numbers are regression targets;
`data.task=classify` or `data.task=regress` overrides this. A fixed stratified shuffle splits the rows 80 : 10 : 10
(`data.split_fractions`, `data.split_seed`, `data.stratify`).

The column schema is fitted on the training rows. A column of numbers becomes one value, normalized to mean 0 and
standard deviation 1. If training rows have missing numbers (empty, NA, NaN or null), the training mean replaces them
and a second value marks them; without missing numbers in training, a missing number is an error. Any other column
becomes one-hot categories; an unknown category is all 0.
"""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.table_files import read_table
from training.data.readers.tables import table_dataset
from training.recipe.config import DataConfig


@register_dataset("table")
def table(config: DataConfig) -> Dataset:
    """Return the rows of the file at `config.path`.

    Raises:
        DataError: no file, no rows, a missing column, or invalid cells.
    """
    return table_dataset("table", *read_table(config.path), config)
