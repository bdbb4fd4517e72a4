"""Texts in a table: a CSV or Parquet file with a column of texts and one to predict.

The target is the last column, or `data.target`. `data.columns` names the column of the texts if there are several other
columns. A target of texts or a few different whole numbers is a class, other numbers are regression targets
(`data.task`). A fixed stratified shuffle splits the rows 80 : 10 : 10 (`data.split_fractions`, `data.split_seed`,
`data.stratify`). The vocabulary is built from the training split.
"""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.table_files import read_rows
from training.data.readers.tables import reading_of, text_dataset
from training.recipe.config import DataConfig


@register_dataset("text_table")
def text_table(config: DataConfig) -> Dataset:
    """Return the rows of the file at `config.path`.

    Raises:
        DataError: no file, no rows, a missing column, or no text.
    """
    return text_dataset("text_table", read_rows(config.path, reading_of(config, texts=True)), config)
