"""ImageNet of the Large Scale Visual Recognition Challenge 2012: 1.28 million training and 50,000 validation images.

`data.path` is a folder in one of three layouts, which is detected:
- folders, train/<wnid>/*.JPEG and val/<wnid>/*.JPEG (or validation/), any images of any classes;
- TFRecord shards train-00000-of-01024 and validation-00000-of-00128 (there, or in train/ and validation/) of
  image/encoded and image/class/label from 1 to 1000, as TensorFlow's own scripts write them;
- the output of `tfds build imagenet2012`: the folder, or one above, with imagenet2012/<version>/ in it.

LOC_synset_mapping.txt, synset_words.txt, words.txt or imagenet_class_index.json in that folder names the classes;
otherwise their WordNet ids do. Images are not checked in advance.

Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge", arXiv:1409.0575.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.common.compat import imagenet_classes
from training.data.dataset import Dataset, register_dataset
from training.data.readers.files import file_split
from training.data.readers.records import record_split
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.common.lazy import tf, tfds
from zoo.reading.files import read_bytes
from zoo.reading.json_files import LIMIT, parse_json
from zoo.specs.preprocessing import IMAGENET

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
SUFFIXES = (".jpeg", ".jpg", ".png")
CLASSES = 1000
# Files of "n01440764 tench, Tinca tinca" by line, or of {"0": ["n01440764", "tench"]}.
LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt", "imagenet_class_index.json")


@register_dataset("imagenet2012")
def imagenet2012(config: DataConfig) -> Dataset:
    """Return ImageNet from the folder `config.path`.

    Raises:
        DataError: no folder, none of the three layouts, or damaged files.
    """
    root = Path(config.path or "data/imagenet2012").expanduser()
    for read in (_records, _prepared, _folders):
        found = read(root) if root.is_dir() else None
        if found:
            return found
    reason = "Give it by: --set data.path=FOLDER" if root.is_dir() else f"There is no folder {root.absolute()}."
    raise DataError(
        "Expected train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, shards train-*-of-* and validation-*-of-*, or a TFDS "
        f"folder (imagenet2012/<version>). Received: data.path={config.path!r}. {reason}"
    )


def _folders(root: Path) -> Dataset | None:
    """Return the images of train/<wnid>/, which defines the classes, and of the other splits."""
    places = {name: _first(root, folders) for name, folders in SPLITS.items()}
    classes = _classes(places["train"]) if places["train"] else []
    if not classes:
        return None
    # Test images have no labels and one folder.
    splits = {name: place for name, place in places.items() if place and (name != "test" or _classes(place))}
    if "validation" not in splits:
        raise DataError(f"Expected val/<wnid>/*.JPEG next to train/. Received: data.path={str(root)!r} without it.")
    found = {name: _images(place, classes) for name, place in splits.items()}
    splits_by_name = {name: file_split(*labelled) for name, labelled in found.items()}
    images = {name: paths for name, (paths, _) in found.items()}
    return Dataset("imagenet2012", _named(root, classes), (0, 0, 3), splits_by_name, IMAGENET, images=images)


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _classes(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(place: Path, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the images of a split in the order of their names, and the number of the class of each."""
    odd = sorted(set(_classes(place)) - set(classes))
    if odd:
        raise DataError(f"Expected the classes of train/ in {place}. Received: {len(odd)} others, such as {odd[:3]}")
    paths, numbers = [], []
    for number, name in enumerate(classes):
        found = _files(place / name)
        paths += found
        numbers += [number] * len(found)
    if not paths:
        raise DataError(f"Expected images ({', '.join(SUFFIXES)}) in {place}/<wnid>/. Received: none")
    return paths, numbers


def _files(folder: Path) -> list[str]:
    """Return the image files of a folder, sorted; [] if there is none."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if Path(e.name).suffix.lower() in SUFFIXES and e.is_file())


def _records(root: Path) -> Dataset | None:
    """Return the images of TFRecord shards."""
    shards = {name: _shards(root, folders) for name, folders in SPLITS.items()}
    if not shards["train"]:
        return None
    if not shards["validation"]:
        raise DataError(f"Expected validation-*-of-* next to train-*-of-*. Received: data.path={str(root)!r}")
    splits = {name: record_split(paths, _parse) for name, paths in shards.items() if paths and name != "test"}
    return Dataset("imagenet2012", _named(root, imagenet_classes()), (0, 0, 3), splits, IMAGENET)


def _shards(root: Path, names: Sequence[str]) -> list[Path]:
    """Return all shards of a split; raises DataError if one is missing."""
    for name in names:
        for folder in (root, root / name):
            found = [p for p in sorted(folder.glob(f"{name}-*-of-*")) if re.fullmatch(r"\w+-\d+-of-\d+", p.name)]
            if not found:
                continue
            total = int(found[0].name.rpartition("-")[2])
            if len(found) != total:
                raise DataError(f"Expected {total} shards {name}-*-of-{total:05d} in {folder}. Received: {len(found)}")
            return found
    return []


def _parse(record: Any) -> tuple[Any, Any]:
    """Return the bytes of an image and its class from 0; the files count from 1."""
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    found = tf.io.parse_single_example(record, features)
    label = found["image/class/label"] - 1
    inside = tf.debugging.Assert((label >= 0) & (label < CLASSES), ["image/class/label is 1 to 1000, found", label + 1])
    with tf.control_dependencies([inside]):
        return found["image/encoded"], tf.identity(label)


def _prepared(root: Path) -> Dataset | None:
    """Return the dataset that TFDS prepared."""
    from training.data.readers.tfds import from_builder

    found = sorted(root.glob("**/dataset_info.json"))[-1:] if _is_tfds(root) else []
    if not found:
        return None
    builder = tfds.builder_from_directory(found[0].parent)
    dataset = from_builder(builder, "imagenet2012", IMAGENET)
    splits = {name: split for name, split in dataset.splits.items() if name != "test"}
    return Dataset("imagenet2012", _named(root, dataset.labels), dataset.shape, splits, IMAGENET)


def _is_tfds(root: Path) -> bool:
    """Return whether a folder is, or directly holds, a dataset that TFDS prepared."""
    return any(any(root.glob(f"{above}dataset_info.json")) for above in ("", "*/", "imagenet2012/*/"))


def _named(root: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes, each unique."""
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    names = _read(path) if path else {}
    called = [names.get(wnid, wnid).partition(",")[0].strip() for wnid in classes]
    # There are two classes named crane and two named maillot.
    return tuple(
        f"{name} ({wnid})" if called.count(name) > 1 and name != wnid else name
        for name, wnid in zip(called, classes, strict=True)
    )


def _read(path: Path) -> dict[str, str]:
    """Return the names of classes by WordNet id."""
    try:
        text = read_bytes(path, LIMIT).decode("utf-8")
        if path.suffix == ".json":
            return {wnid: name.replace("_", " ") for wnid, name in parse_json(text, dict).values()}
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise DataError(f'Expected {{"0": ["n01440764", "tench"], ...}} in {path}. Received: {error}') from error
    pairs = (re.split(r"\s+", line.strip(), maxsplit=1) for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
