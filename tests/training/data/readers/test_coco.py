"""COCO as it is on disk and as TFDS prepares it; bad annotations are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from label_images import marks, picture, pixels, prepare
from loaded_data import one_line

from training import DataConfig
from training.data.readers.loading import load_dataset
from zoo.common.errors import DataError


@pytest.fixture
def coco(tmp_path):
    """The folders of COCO 2017 with twenty training images and two that papers call validation."""
    (tmp_path / "annotations").mkdir()
    categories = [{"id": 7, "name": "train"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    for split, numbers in (("train", range(20)), ("val", (20, 21))):
        (tmp_path / f"{split}2017").mkdir()
        for n in numbers:
            (tmp_path / f"{split}2017/{n:012d}.jpg").write_bytes(picture(n))
        content = {
            "images": [{"id": 100 + n, "file_name": f"{n:012d}.jpg", "height": 20, "width": 24} for n in numbers],
            "categories": categories,
            "annotations": [
                {"id": 10 * n + c, "image_id": 100 + n, "category_id": c, "iscrowd": 0, "bbox": [0, 0, 1, 1]}
                for n in numbers
                for c in (1, 7, 18)
                if n % (c + 1) == 0
            ],
        }
        (tmp_path / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return tmp_path


def test_coco_is_read_as_it_is_distributed(coco):
    """Labels are in the order of their numbers; the images called validation are the test split."""
    dataset = load_dataset(DataConfig("coco", path=str(coco)))
    assert dataset.labels == ("person", "train", "dog")
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 18, "validation": 2, "test": 2}
    expected = {n: {k: 1 for k, c in (("person", 2), ("train", 8), ("dog", 19)) if n % c == 0} for n in range(22)}
    assert marks(dataset, "test") == {20: expected[20], 21: expected[21]}
    assert marks(dataset, "train") | marks(dataset, "validation") == {n: expected[n] for n in range(20)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=999), "KeyError: 999"),
        (lambda c: c["annotations"][0].update(category_id=999), "KeyError: 999"),
        (lambda c: c.pop("categories"), "KeyError: 'categories'"),
        (lambda c: c["images"][0].update(file_name="../../etc/passwd"), "is outside of train2017"),
    ],
)
def test_bad_annotations_of_coco_are_reported_in_one_line(coco, change, message):
    """An unknown number, a missing part and a file outside the folder are refused."""
    path = coco / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        load_dataset(DataConfig("coco", path=str(coco)))
    one_line(error)


def test_prepared_coco_of_tfds_is_found(tmp_path):
    """Without the folder, the files that TFDS prepared are read, with their features and splits."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("coco/2017", data_dir=tmp_path, try_gcs=False)
    objects = dict(builder.info.features["objects"].feature.items())
    features = {
        "image": builder.info.features["image"],
        "image/filename": tfds.features.Text(),
        "image/id": np.int64,
        "objects": tfds.features.Sequence(objects),
    }
    box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)

    def example(number, labels):
        found = [{"area": 1, "bbox": box, "id": i, "is_crowd": False, "label": label} for i, label in enumerate(labels)]
        return {"image": pixels(number), "image/filename": "x.jpg", "image/id": number, "objects": found}

    splits = {
        "train": [example(n, [n % 3, n % 3]) for n in range(10)],
        "validation": [example(n, [79]) for n in (10, 11, 12)],
        "test": [example(13, [])],
    }
    prepare(tmp_path, "coco", str(builder.version), features, splits, config="2017")
    dataset = load_dataset(DataConfig("coco", path=str(tmp_path)))
    assert len(dataset.labels) == 80
    assert {n: s.count for n, s in dataset.splits.items()} == {"train": 9, "validation": 1, "test": 3}
    assert marks(dataset, "test") == {n: {dataset.labels[79]: 1} for n in (10, 11, 12)}
    assert marks(dataset, "validation") == {9: {dataset.labels[0]: 1}}
