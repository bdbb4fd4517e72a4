"""A folder of images, one sub-folder per class: PATH/cat/1.jpg, or PATH/train/cat/1.jpg with validation/ and test/.

Without such splits, a fixed stratified shuffle splits the images 80 : 10 : 10; `data.split_fractions`,
`data.split_seed` and `data.stratify` change that.
"""

from __future__ import annotations

import functools

from training.data.dataset import Dataset, register_dataset
from training.data.readers.folders import IMAGES, any_turned, image_splits, labelled, open_folder
from training.recipe.config import DataConfig


@register_dataset("folder")
def folder(config: DataConfig) -> Dataset:
    """Return the images below `config.path`; its check decodes them.

    Raises:
        DataError: no folder, no classes, or a class with no images.
    """
    found = open_folder(config, IMAGES)
    images = {name: labelled(files) for name, files in found.splits.items()}
    splits, check = image_splits(found.root, images, config.skip_bad)
    find_turned = functools.partial(any_turned, {name: paths for name, (paths, _) in images.items()})
    return Dataset(
        "folder",
        found.labels,
        (0, 0, 0),
        splits,
        options=found.options,
        turned=True,
        find_turned=find_turned,
        check=check,
        notes=found.notes,
    )
