"""IMDB: 50,000 film reviews, half to train and half to test, that praise or pan.

Maas et al., "Learning word vectors for sentiment analysis", ACL 2011. Read from the archive's own folder at `data.path`
(aclImdb, with train/pos/0_9.txt and so on), else as imdb_reviews of TensorFlow Datasets, prepared below `data.path`. A
tenth of the training reviews is the validation split.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from training.data.dataset import Dataset, register_dataset
from training.data.readers.scan import FileKind
from training.data.readers.text_folders import text_files
from training.recipe.config import DataConfig

REVIEWS = FileKind("reviews", (".txt",), ignored=("unsup",))


@register_dataset("imdb")
def imdb(config: DataConfig) -> Dataset:
    """Return the reviews.

    Raises:
        DataError: they are neither in the folder nor prepared, and the download fails.
    """
    root = Path(config.path).expanduser()
    place = next((p for p in (root, root / "aclImdb") if config.path and (p / "train" / "pos").is_dir()), None)
    if place:
        return text_files("imdb", dataclasses.replace(config, path=str(place)), REVIEWS)
    from training.data.readers.tfds import load_by_name

    found = load_by_name(dataclasses.replace(config, name="imdb_reviews/plain_text"))
    return dataclasses.replace(found, name="imdb")
