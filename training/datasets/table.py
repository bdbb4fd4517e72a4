"""A table of your own: a CSV or Parquet file with a column to predict.

The target is the last column, or the one that is named by `data.target`; `data.columns` names the features, all
others by default. Texts and a few different whole numbers in the target are classes, other numbers are a scale to
predict a value on; `data.task=classify` or `data.task=regress` decides otherwise. Rows are divided 80 : 10 : 10 by a
fixed shuffle, each class alike (`data.shares`, `data.split_seed`, `data.stratify`).

What the columns hold is learnt from the training rows alone. A column of numbers is one value, scaled to mean 0 and
deviation 1. Where training rows lack some of its numbers (empty, NA, NaN or null) the training mean stands in, and a
second value says so; a number that is missing where none was in training is refused. Any other column becomes a value
of 0 or 1 for each of its texts; one that no training row has is 0 in all of them.
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
        DataError: no file, no rows, a column that is not there, or cells that cannot be.
    """
    return table_dataset("table", *read_table(config.path), config)
