"""Folders as people have them: split names, classes named like splits, hidden files, links, wrapped folders."""

from __future__ import annotations

import os
import shutil

import pytest
from PIL import Image

from training.data.readers.folders import open_folder
from training.data.readers.images.checks import image_kind
from training.data.readers.loading import load_dataset
from training.data.readers.scan import split_of
from training.recipe.config import DataConfig
from zoo.common.errors import DataError

PIXEL = Image.new("RGB", (4, 4), (200, 30, 60))


def fill(root, *folders, count=10, suffix=".png"):
    """Write small images into folders below a root; returns the root."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            PIXEL.save(root / folder / f"{i}{suffix}")
    return root


def opened(root):
    """The folder as it is read."""
    return open_folder(DataConfig("folder", path=str(root)), image_kind())


def counts(folder):
    """Number of files by split."""
    return {name: sum(map(len, files.values())) for name, files in folder.splits.items()}


USUAL = [
    ("train", "validation", "test"),
    ("Training", "Validation", "Testing"),
    ("TRAIN", "VAL", "TEST"),
    ("train", "valid", "test"),
    ("train_set", "dev-set", "test_set"),
    ("images train", "images val", "images test"),
    ("training", "validation", "evaluation"),
    ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
    ("data/archive/train", "data/archive/val", "data/archive/test"),
]


@pytest.mark.parametrize("names", USUAL, ids=" ".join)
def test_usual_names_of_splits(names, tmp_path):
    """In any case, with other words beside them, and with folders around them."""
    for name, count in zip(names, (6, 3, 2), strict=True):
        fill(tmp_path / name, "cat", "dog", count=count)
    found = opened(tmp_path)
    assert found.labels == ("cat", "dog")
    assert counts(found) == {"train": 12, "validation": 6, "test": 4}
    assert (found.notes, found.options) == ((), ())


def test_training_and_testing_alone(tmp_path):
    """A tenth of the training split validates; the test split stays whole."""
    fill(tmp_path / "Training", "glioma", "none", count=20)
    fill(tmp_path / "Testing", "glioma", "none", count=8)
    assert counts(opened(tmp_path)) == {"train": 36, "validation": 4, "test": 16}
    assert opened(tmp_path).labels == ("glioma", "none")


@pytest.mark.parametrize("names", [("bus", "train"), ("plane", "test", "train"), ("validation", "x", "train")])
def test_classes_named_like_splits(names, tmp_path):
    """Folders that hold images directly are classes, whatever their names are."""
    found = opened(fill(tmp_path, *names))
    assert found.labels == tuple(sorted(names))
    assert "split_fractions" in found.options


def test_classes_named_like_splits_inside_splits(tmp_path):
    """A class called train inside a split is a class."""
    for split in ("train", "test"):
        fill(tmp_path / split, "bus", "train")
    assert opened(tmp_path).labels == ("bus", "train")
    assert counts(opened(tmp_path)) == {"train": 18, "validation": 2, "test": 20}


def test_classes_with_folders_inside(tmp_path):
    """A class may have folders; beside other classes, one called train is no split."""
    fill(tmp_path, "bus/red", "bus/blue", "train/steam", "train/electric", count=5)
    (tmp_path / "train/steam/list.txt").write_text("none")
    found = opened(tmp_path)
    assert found.labels == ("bus", "train")
    assert found.notes == ("Left out: 1 file of another type (.txt 1)",)


def test_two_folders_of_one_split_are_refused(tmp_path):
    """Unless one has just the usual name, nobody can tell which is meant."""
    for split in ("train_1", "train_2", "test"):
        fill(tmp_path / split, "cat", "dog")
    with pytest.raises(DataError, match=r"one folder of the train split. Received: .* with 'train_1', 'train_2'"):
        opened(tmp_path)
    (tmp_path / "train_1").rename(tmp_path / "train")
    assert counts(opened(tmp_path))["train"] == 18


def test_folders_beside_splits_are_said(tmp_path):
    """Images to predict, without classes, are left out in one line."""
    for split in ("seg_train", "seg_test"):
        fill(tmp_path / split, "cat", "dog")
    fill(tmp_path / "seg_pred", "seg_pred", count=3)
    assert opened(tmp_path).notes == ("Left out: 3 files in seg_pred, which is no split (.png 3)",)


def test_hidden_files_are_no_examples(tmp_path):
    """Copies of notebooks, of macOS, thumbnails of Windows and of storage systems are left out and counted."""
    fill(tmp_path, "cat", "dog")
    shutil.copytree(tmp_path / "cat", tmp_path / "cat/.ipynb_checkpoints")
    fill(tmp_path, "__MACOSX/cat", count=2)
    for name in ("cat/._0.png", "cat/.DS_Store", "dog/Thumbs.db", "dog/desktop.ini"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07" + bytes(40))
    found = opened(tmp_path)
    assert found.labels == ("cat", "dog")
    assert sum(counts(found).values()) == 20
    assert found.notes == ("Left out: 16 files hidden (.png 13, .DS_Store 1, .db 1, .ini 1)",)
    assert load_dataset(DataConfig("folder", path=str(tmp_path))).notes[0] == found.notes[0]


def test_links_to_folders_are_followed(tmp_path):
    """A class may be a link, and hold links; a folder that contains itself is read once; a broken link is counted."""
    fill(tmp_path / "elsewhere", "cats", "more")
    root = fill(tmp_path / "photos", "dog")
    os.symlink(tmp_path / "elsewhere/cats", root / "cat")
    os.symlink(tmp_path / "elsewhere/more", root / "dog/more")
    os.symlink(root / "dog", root / "dog/again")
    os.symlink(tmp_path / "gone.png", root / "dog/gone.png")
    found = opened(root)
    assert found.labels == ("cat", "dog")
    assert sum(counts(found).values()) == 30
    assert found.notes == ("Left out: 1 file behind broken links (.png 1)",)


def test_other_types_are_counted(tmp_path):
    """Files of other types are counted with their suffixes; images without a class too."""
    fill(tmp_path, "cat", "dog")
    for name in ("cat/list.txt", "cat/a.psd", "dog/b.psd"):
        (tmp_path / name).write_text("none")
    PIXEL.save(tmp_path / "cover.png")
    assert set(opened(tmp_path).notes) == {
        "Left out: 3 files of another type (.psd 2, .txt 1)",
        "Left out: 1 file without a class (.png 1)",
    }


def test_numbers_are_ordered_as_numbers(tmp_path):
    """Classes called 0 to 11 are in this order; other names are in the order of their letters."""
    fill(tmp_path / "numbers", *map(str, range(12)))
    assert opened(tmp_path / "numbers").labels == tuple(map(str, range(12)))
    fill(tmp_path / "names", "c10", "c2", "c1")
    assert opened(tmp_path / "names").labels == ("c1", "c10", "c2")


def test_names_of_splits():
    """Words, not parts of words, name a split; two words name none."""
    found = {
        name: split_of(name) for name in ("Train", "trains", "constraint", "val2017", "train_test", "latest", "DEV")
    }
    assert found == {
        "Train": "train", "trains": None, "constraint": None, "val2017": "validation", "train_test": None,
        "latest": None, "DEV": "validation",
    }  # fmt: skip
