"""PASCAL VOC 2007 as a multi-label dataset: which of 20 kinds of objects an image shows.

Everingham et al., "The PASCAL visual object classes challenge 2007". Read from the development kit at `data.path`
(VOCdevkit, with VOC2007/JPEGImages, Annotations and ImageSets/Main), else as voc/2007 of TensorFlow Datasets, prepared
below `data.path`. The splits are those of the challenge: 2,501 training, 2,510 validation and 4,952 test images.
Classes with only difficult objects in an image are not evaluated there, as in the challenge.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from training.data.dataset import Dataset, register_dataset
from training.data.readers.images.multilabel import Marks, labelled_images, tfds_labels
from training.recipe.config import DataConfig
from zoo.common.errors import DataError
from zoo.reading.files import Refusal, read_bytes, reading
from zoo.reading.json_files import LIMIT

LABELS = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
LISTS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}


@register_dataset("voc2007")
def voc2007(config: DataConfig) -> Dataset:
    """Return the images with their labels.

    Raises:
        DataError: they are neither in the folder nor prepared, or an annotation or image cannot be read.
    """
    root = Path(config.path).expanduser()
    places = (root, root / "VOC2007", root / "VOCdevkit" / "VOC2007")
    place = next((p for p in places if config.path and (p / "ImageSets" / "Main").is_dir()), None)
    if place is None:
        return tfds_labels("voc2007", "voc/2007", config, lambda e: (e["labels"], e["labels_no_difficult"]))
    lists = {split: place / "ImageSets" / "Main" / name for split, name in LISTS.items()}
    if not (lists["train"].is_file() and lists["validation"].is_file()):
        raise DataError(f"Expected train.txt and val.txt in {place / 'ImageSets' / 'Main'}. Received: one is missing.")
    splits = {split: _pairs(place, path) for split, path in lists.items() if path.is_file()}
    return labelled_images("voc2007", place, LABELS, splits, config)


def _pairs(place: Path, listing: Path) -> list[tuple[Path, Marks]]:
    """Return the images of a list, which may have a further column, with their marks."""
    with reading(listing, Refusal("Expected a list of images", DataError, "Correct the file.")):
        lines = read_bytes(listing, LIMIT).decode("utf-8").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    return [(place / "JPEGImages" / f"{name}.jpg", read_marks(place / "Annotations" / f"{name}.xml")) for name in names]


def read_marks(path: Path) -> Marks:
    """Return the classes of an annotation: 1, or -1 if all objects of a class are difficult.

    Raises:
        DataError: the file is missing, is no annotation, has an unknown class, or declares a document type, as entities
            can expand without bound.
    """
    try:
        text = read_bytes(path, LIMIT).decode("utf-8")
        if "<!doctype" in text.lower():
            raise DataError(f"Expected an annotation without a document type. Received: {path} with one.")
        found = [(o.findtext("name", "").strip(), o.findtext("difficult", "0")) for o in _objects(text)]
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"Expected an annotation in XML. Received: {path}: {reason}") from error
    unknown = sorted({kind for kind, _ in found} - {*LABELS})
    if unknown:
        raise DataError(f"Expected the classes {', '.join(LABELS)}. Received: {unknown[:5]} in {path}")
    marks = dict.fromkeys((kind for kind, _ in found), -1)
    return marks | dict.fromkeys((kind for kind, difficult in found if difficult.strip() != "1"), 1)


def _objects(text: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(text).findall("object")
