"""A folder of images, one sub-folder per class: PATH/cat/1.jpg, or PATH/train/cat/1.jpg with validation/ and test/.

Without such splits, a fixed stratified shuffle splits the images 80 : 10 : 10; `data.split_fractions`,
`data.split_seed` and `data.stratify` change that.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from training.data.dataset import Dataset, Split, register_dataset
from training.data.readers.folders import IMAGES, Files, good_images, image_split, open_folder
from training.recipe.config import DataConfig


@register_dataset("folder")
def folder(config: DataConfig) -> Dataset:
    """Return the images below `config.path`.

    Raises:
        DataError: no folder, no classes, a class with no images, or images that cannot be decoded.
    """
    root, splits, options = open_folder(config, IMAGES)
    paths = list(chain.from_iterable(chain.from_iterable(f.values() for f in splits.values())))
    good = good_images(root, paths, config.skip_bad)
    made = {name: _split(root, files, good) for name, files in splits.items()}
    return Dataset("folder", tuple(splits["train"]), (0, 0, 0), made, options=options)


def _split(root: Path, files: Files, good: set[Path]) -> Split:
    pairs = [(path, number) for number, images in enumerate(files.values()) for path in images if path in good]
    return image_split(root, [path for path, _ in pairs], [number for _, number in pairs])
