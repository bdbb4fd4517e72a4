"""A folder of images, one sub-folder per class: PATH/cat/1.jpg, or PATH/train/cat/1.jpg with validation/ and test/.

Or a label file: a CSV or Parquet file with a column of image paths and one or many label columns, at PATH or as
`labels.csv` in a folder without classes.

Without such splits, a fixed stratified split by the hashes of the names has 80 : 10 : 10; `data.split_fractions`,
`data.split_seed` and `data.stratify` change that.
"""

from __future__ import annotations

import dataclasses

from training.data.dataset import Dataset, register_dataset
from training.data.readers.folders import Folder, labelled, open_folder
from training.data.readers.images.checks import image_kind
from training.data.readers.images.labels import is_label_file, label_file_in, label_files
from training.data.readers.images.sets import ImageFiles, image_dataset
from training.recipe.config import DataConfig


@register_dataset("folder")
def folder(config: DataConfig) -> Dataset:
    """Return the images below `config.path`; its check decodes them.

    Raises:
        DataError: no folder, no classes, or a class with no images.
    """
    kind = image_kind()
    table = config.path if is_label_file(config.path) else label_file_in(config.path)
    if table:
        return image_dataset(label_files(dataclasses.replace(config, path=table), kind), config)
    return image_dataset(_image_files(open_folder(config, kind), kind.suffixes), config)


def _image_files(found: Folder, suffixes: tuple[str, ...]) -> ImageFiles:
    pairs = {name: labelled(files) for name, files in found.splits.items()}
    targets = {path: number for paths, numbers in pairs.values() for path, number in zip(paths, numbers, strict=True)}
    legacy = found.legacy
    return ImageFiles(
        "folder",
        found.root,
        found.labels,
        {name: paths for name, (paths, _) in pairs.items()},
        targets,
        options=(*found.options, "near_duplicates"),
        notes=found.notes,
        suffixes=suffixes,
        unused=found.unused,
        legacy=None if legacy is None else lambda: _image_files(legacy, suffixes),
    )
