"""A folder of texts, one sub-folder per class: PATH/sport/1.txt, or PATH/train/sport/1.txt with validation/ and test/.

Files are UTF-8 and end in .txt. Without such splits, a fixed stratified shuffle splits the texts 80 : 10 : 10;
`data.split_fractions`, `data.split_seed` and `data.stratify` change that. The vocabulary is built from the training
split.
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
        DataError: no folder, no classes, a class without texts, or files that are empty or not UTF-8.
    """
    return text_files("text_folder", config, FileKind("texts", (".txt",)))
