"""COCO as a multi-label dataset: which of 80 kinds of objects an image shows.

Lin et al., "Microsoft COCO: common objects in context", ECCV 2014. Read from the folder at `data.path` as it is
distributed (annotations/instances_train2017.json and instances_val2017.json, with the images in train2017/ and
val2017/; of any year), else as coco/2017 of TensorFlow Datasets, prepared below `data.path`. The
validation images, on which papers report, are the test split here; a tenth of the training images is the validation
split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.data.dataset import Dataset, register_dataset
from training.data.readers.images.multilabel import Marks, labelled_images, tfds_labels
from training.data.splits import split_indices
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.reading.files import read_bytes
from zoo.reading.json_files import parse_json

LIMIT = 4 << 30  # bytes of a file of annotations
PREFIX = "instances_"


@register_dataset("coco")
def coco(config: DataConfig) -> Dataset:
    """Return the images with their labels.

    Raises:
        DataError: they are neither in the folder nor prepared, or an annotation or image cannot be read.
    """
    root = Path(config.path).expanduser()
    found = sorted((root / "annotations").glob(f"{PREFIX}train*.json")) if config.path else []
    if not found:
        return tfds_labels("coco", "coco/2017", config, lambda e: (e["objects"]["label"],) * 2, test="validation")
    labels, pairs = _read(root, found[-1])
    parts = split_indices(len(pairs), DataConfig(), fractions=(0.9, 0.1, 0.0))
    splits = {split: [pairs[i] for i in part] for split, part in parts.items()}
    held_out = found[-1].with_name(found[-1].name.replace("train", "val"))
    if held_out.is_file():
        others, splits["test"] = _read(root, held_out)
        if others != labels:
            raise DataError(f"Expected the same categories in {found[-1].name} and {held_out.name}. Received: others.")
    return labelled_images("coco", root, labels, splits, config)


def _read(root: Path, path: Path) -> tuple[list[str], list[tuple[Path, Marks]]]:
    """Return the labels in the order of their numbers, and the images of a file with their marks."""
    try:
        content = parse_json(read_bytes(path, LIMIT), dict)
        names = {c["id"]: str(c["name"]) for c in sorted(content["categories"], key=lambda c: c["id"])}
        folder = root / path.stem.removeprefix(PREFIX)
        images = {image["id"]: (_inside(folder, image["file_name"]), {}) for image in content["images"]}
        for annotation in content["annotations"]:
            images[annotation["image_id"]][1][names[annotation["category_id"]]] = 1
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise DataError(f"Expected annotations in COCO format. Received: {path}: {reason}") from error
    return list(names.values()), list(images.values())


def _inside(folder: Path, name: Any) -> Path:
    """Return the path of an image; raises ValueError if it is outside of its folder."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"file_name={name!r} is outside of {folder.name}")
    return path
