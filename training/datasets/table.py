"""A table of your own: a CSV or Parquet file with a column to predict.

The target is the last column, or `data.target`; `data.columns` names the feature columns, all others by default. A
target of texts or a few different whole numbers is a class, other numbers are regression targets;
`data.task=classify` or `data.task=regress` overrides this. A fixed stratified shuffle splits the rows 80 : 10 : 10
(`data.split_fractions`, `data.split_seed`, `data.stratify`).

The column schema is fitted on the training rows, and printed before training. Most cells of a column decide its type.
A number becomes one value, normalized to mean 0 and standard deviation 1; decimal commas, thousands separators,
currencies, units and per cent are read (`data.decimal`). A date becomes year, month, day, weekday and elapsed days. The
training mean replaces a missing value (`data.missing`), and one more value marks it if training rows have missing ones.
Other columns become one-hot categories, or are hashed if there are many; unknown categories share a value with rare
ones, or are all 0. Ids, names and an index are left out, and named.
"""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.table_files import read_rows
from training.data.readers.tables import reading_of, table_dataset
from training.recipe.config import DataConfig


@register_dataset("table")
def table(config: DataConfig) -> Dataset:
    """Return the rows of the file at `config.path`.

    Raises:
        DataError: no file, no rows, a missing column, or invalid cells.
    """
    return table_dataset("table", read_rows(config.path, reading_of(config)), config)
