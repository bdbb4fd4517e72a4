"""A folder of texts, one sub-folder a class: PATH/sport/1.txt, or PATH/train/sport/1.txt with validation/ and test/.

Files are UTF-8 and end in .txt. Without such splits, each class is divided by a fixed shuffle: 80% train, 10% validate,
10% test, or as `data.shares`, `data.split_seed` and `data.stratify` say. The vocabulary is learnt from the training
split.
"""

from __future__ import annotations

from training.data.dataset import Dataset, register_dataset
from training.data.readers.folders import Kind
from training.data.readers.text_folders import text_files
from training.recipe.config import DataConfig


@register_dataset("text_folder")
def text_folder(config: DataConfig) -> Dataset:
    """Return the texts below `config.path`.

    Raises:
        DataError: no folder, no classes, a class without texts, or files that are empty or not UTF-8.
    """
    return text_files("text_folder", config, Kind("texts", (".txt",)))
