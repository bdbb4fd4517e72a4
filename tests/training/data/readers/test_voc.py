"""VOC as it is on disk and as TFDS prepares it; bad annotations, missing parts and recipes that are refused."""

from __future__ import annotations

import pytest
from label_images import annotation, marks, picture, pixels, prepare
from loaded_data import one_line

import training
from training import AugmentConfig, DataConfig, LossConfig, ModelConfig, Recipe
from training.data.readers.loading import load_dataset
from zoo.common.errors import BadOption, DataError

OBJECTS = [
    [("cat", False), ("dog", True)],
    [("dog", False), ("dog", True)],
    [("person", False), ("cat", False)],
    [],
    [("train", False)],
    [("cat", True)],
]


@pytest.fixture
def voc(tmp_path):
    """VOCdevkit with six images: three train, two validate, one tests."""
    place = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (place / folder).mkdir(parents=True)
    for number, objects in enumerate(OBJECTS):
        (place / f"JPEGImages/{number:06d}.jpg").write_bytes(picture(number))
        (place / f"Annotations/{number:06d}.xml").write_text(annotation(objects))
    lists = {"train": (0, 1, 2), "val": (3, 4), "test": (5,), "trainval": range(5)}
    for name, numbers in lists.items():
        (place / f"ImageSets/Main/{name}.txt").write_text("".join(f"{n:06d}\n" for n in numbers))
        (place / f"ImageSets/Main/cat_{name}.txt").write_text("".join(f"{n:06d} -1\n" for n in numbers))
    return tmp_path


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_voc_is_read_from_its_folders(voc, inside):
    """Kinds of objects are labels; a kind that is only difficult is not evaluated; the lists are the splits."""
    dataset = load_dataset(DataConfig("voc2007", path=str(voc / inside)))
    assert (len(dataset.labels), dataset.task, dataset.shape) == (20, "multilabel", (0, 0, 0))
    assert marks(dataset, "train") == {0: {"cat": 1, "dog": -1}, 1: {"dog": 1}, 2: {"person": 1, "cat": 1}}
    assert marks(dataset, "validation") == {3: {}, 4: {"train": 1}}
    assert marks(dataset, "test") == {5: {"cat": -1}}


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "without a document type"),
        (BOMB.replace("DOCTYPE", "doctype"), "without a document type"),
        ("<annotation><object>", "annotation in XML"),
        ("", "annotation in XML"),
        (annotation([("unicorn", False)]), "Received: \\['unicorn'\\]"),
    ],
)
def test_bad_annotations_are_reported_in_one_line(voc, content, message):
    """An entity bomb is never expanded; an invalid annotation and an unknown kind are named with their file."""
    (voc / "VOCdevkit/VOC2007/Annotations/000001.xml").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        load_dataset(DataConfig("voc2007", path=str(voc)))
    assert "000001.xml" in one_line(error)


def test_missing_parts_of_voc_are_reported(voc, tmp_path):
    """A missing image, annotation or list is named; without the kit, the message names what to prepare."""
    place = voc / "VOCdevkit/VOC2007"
    (place / "JPEGImages/000002.jpg").rename(place / "000002.jpg")
    with pytest.raises(DataError, match=r"1 of 6.*000002\.jpg") as error:
        load_dataset(DataConfig("voc2007", path=str(voc)))
    one_line(error)
    assert load_dataset(DataConfig("voc2007", path=str(voc), skip_bad=True)).splits["train"].count == 2
    (place / "ImageSets/Main/val.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt and val\.txt"):
        load_dataset(DataConfig("voc2007", path=str(voc)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": LossConfig("cross_entropy")}, "The loss of several labels at once must be one of"),
        ({"loss": LossConfig("mse")}, "The loss of several labels at once must be one of"),
        ({"model": ModelConfig("encoder_tiny")}, "must have the task and the kind of input"),
    ],
)
def test_what_does_not_go_with_several_labels_is_refused(voc, changes, message, tmp_path):
    """A loss for classes or numbers, and a model for texts, are refused before a run is created."""
    data = DataConfig("voc2007", path=str(voc), image_size=(32, 32), augment=AugmentConfig())
    made = Recipe("t", **{"model": ModelConfig("resnet_tiny"), "data": data, "epochs": 1, **changes})
    with pytest.raises(BadOption, match=message) as error:
        training.train(made, run=tmp_path / "run")
    one_line(error)
    assert not (tmp_path / "run").exists()


def test_prepared_voc_of_tfds_is_found(tmp_path):
    """Without the kit, the files that TFDS prepared are read; kinds that are only difficult are not evaluated."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("voc/2007", data_dir=tmp_path, try_gcs=False)
    names, features = ("image", "labels", "labels_no_difficult"), dict(builder.info.features.items())
    # Further features of the files, which are not read.
    rest = {"image/filename": "x.jpg", "objects": []}
    examples = [([7, 11], [7]), ([11], [11]), ([], []), ([3], [])]
    made = [dict(zip(names, (pixels(n), *labels), strict=True)) | rest for n, labels in enumerate(examples)]
    splits = {"train": made[:2], "validation": made[2:3], "test": made[3:]}
    prepare(tmp_path, "voc", str(builder.version), features, splits, config="2007")
    dataset = load_dataset(DataConfig("voc2007", path=str(tmp_path)))
    assert (len(dataset.labels), dataset.task) == (20, "multilabel")
    assert marks(dataset, "train") == {0: {"cat": 1, "dog": -1}, 1: {"dog": 1}}
    assert (marks(dataset, "validation"), marks(dataset, "test")) == ({2: {}}, {3: {"boat": -1}})
