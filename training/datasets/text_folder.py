"""A folder of texts, one sub-folder per class: PATH/sport/1.txt, or PATH/train/sport/1.txt with validation/ and test/.

Files end in .txt; they are UTF-8, UTF-16 with a byte order mark, or else read as cp1252 (`data.encoding`). Without such
splits, a fixed stratified shuffle splits the texts 80 : 10 : 10; `data.split_fractions`, `data.split_seed` and
`data.stratify` change that. The vocabulary is built from the training split. A text without a word is the unknown
token, or is left out if `data.skip_bad`.
"""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.scan import FileKind
from training.data.readers.text_folders import text_files
from training.recipe.config import DataConfig


@register_dataset("text_folder")
def text_folder(config: DataConfig) -> Dataset:
    """Return the texts below `config.path`.

    Raises:
        DataError: no folder, no classes, a class without texts, or files that are no text.
    """
    return text_files("text_folder", config, FileKind("texts", (".txt",)))
