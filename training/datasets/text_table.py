"""Texts in a table: a CSV or Parquet file with a column of texts and one to predict.

The target is the last column, or the one that is named by `data.target`. The texts are in the column that
`data.columns` names, which is needed where there is more than one beside the target. Texts and a few different whole
numbers in the target are classes, other numbers a scale to predict a value on (`data.task`). Rows are divided 80 : 10
: 10 by a fixed shuffle, each class alike (`data.shares`, `data.split_seed`, `data.stratify`); the vocabulary is
learnt from the training split.
"""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.table_files import read_table
from training.data.readers.tables import text_dataset
from training.recipe.config import DataConfig


@register_dataset("text_table")
def text_table(config: DataConfig) -> Dataset:
    """Return the rows of the file at `config.path`.

    Raises:
        DataError: no file, no rows, a column that is not there, or an empty text.
    """
    return text_dataset("text_table", *read_table(config.path), config)
