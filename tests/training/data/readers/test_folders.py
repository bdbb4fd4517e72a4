"""Folders of images: classes and splits, what is refused, and files that cannot be decoded."""

from __future__ import annotations

import numpy as np
import pytest
from loaded_data import one_line, rows
from small_images import encoded, fill, noise

from training import DataConfig
from training.data.readers.images.checks import ImageChecks
from training.data.readers.loading import load_dataset
from zoo.common.errors import DataError


def load_folder(path, **options):
    """Load a folder dataset."""
    return load_dataset(DataConfig("folder", path=str(path), **options))


def test_folder_splits_each_class(tmp_path):
    """Subfolders are the classes; 80% of each train, 10% validate, 10% test; every image is in one split."""
    dataset = load_folder(fill(tmp_path, ("dog", "cat", "ape"), suffixes=(".jpg", ".png", ".bmp", ".gif", ".webp")))
    assert dataset.labels == ("ape", "cat", "dog")
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 24, "validation": 3, "test": 3}
    for split, each in (("train", 8), ("validation", 1), ("test", 1)):
        assert np.bincount(rows(dataset.splits[split])[1]).tolist() == [each] * 3
    seen = [image for split in dataset.splits.values() for image in rows(split)[0]]
    assert sorted(seen) == sorted(p.read_bytes() for p in tmp_path.rglob("*.*"))


def test_folder_splits_by_a_fixed_shuffle(tmp_path):
    """The same files give the same splits in every location, and the splits are shuffled."""
    one, two = (load_folder(fill(tmp_path / place, count=20)) for place in ("a", "b"))
    for name in one.splits:
        assert rows(one.splits[name]) == rows(two.splits[name])
    first = [p.read_bytes() for p in sorted((tmp_path / "a/cat").iterdir())[:16]]
    assert set(rows(one.splits["train"])[0][:16]) != set(first)


def test_folder_with_splits_of_its_own(tmp_path):
    """train/, validation/ and test/ are used as splits."""
    for place, count in (("train", 5), ("val", 3), ("test", 2)):
        fill(tmp_path / place, count=count)
    dataset = load_folder(tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 10, "validation": 6, "test": 4}
    files = {p.read_bytes() for p in (tmp_path / "test").rglob("*.png")}
    assert set(rows(dataset.splits["test"])[0]) == files


def test_folder_with_train_and_test_only(tmp_path):
    """Without validation/, a tenth of train/ validates, and test/ stays complete."""
    fill(tmp_path / "train", count=20)
    fill(tmp_path / "test", count=3)
    dataset = load_folder(tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 36, "validation": 4, "test": 6}


def test_folder_ignores_other_files(tmp_path):
    """Other files and hidden folders next to the images are ignored."""
    fill(tmp_path)
    (tmp_path / "cat/notes.txt").write_text("tabby")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("cats and dogs")
    dataset = load_folder(tmp_path)
    assert dataset.labels == ("cat", "dog")
    assert sum(split.count for split in dataset.splits.values()) == 20


def test_folder_is_missing(tmp_path):
    """None given is reported with the option to set, a missing folder with its place, and a file as one."""
    (tmp_path / "photos.zip").write_bytes(b"PK")
    reasons = {
        "": r"--set data\.path=FOLDER",
        tmp_path / "nowhere": f"There is no {tmp_path}/nowhere",
        tmp_path / "photos.zip": "It is a file",
    }
    for path, reason in reasons.items():
        with pytest.raises(DataError, match=rf"Expected a folder with one sub-folder of images.* {reason}") as error:
            load_folder(path)
        one_line(error)


@pytest.mark.parametrize("classes", [(), ("cat",)])
def test_folder_needs_two_classes(tmp_path, classes):
    """A folder without classes, or with a single one, is refused."""
    fill(tmp_path, classes)
    with pytest.raises(DataError, match=f"at least two sub-folders.* with {len(classes)}") as error:
        load_folder(tmp_path)
    one_line(error)


def test_folder_names_a_class_without_images(tmp_path):
    """An empty class is named."""
    fill(tmp_path)
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow/list.txt").write_text("none yet")
    with pytest.raises(DataError, match="none in 'cow'") as error:
        load_folder(tmp_path)
    one_line(error)


def test_folder_splits_have_the_same_classes(tmp_path):
    """A class that a split lacks is named, with the split."""
    fill(tmp_path / "train", ("ape", "cat", "dog"))
    fill(tmp_path / "validation", ("ape", "cat", "dog"))
    fill(tmp_path / "test", ("ape", "cat"))
    with pytest.raises(DataError, match=r"test differs in \['dog'\]") as error:
        load_folder(tmp_path)
    one_line(error)


def corrupt(root):
    """Add four undecodable files to 20 good ones."""
    good = encoded(noise(64, 64), "JPEG")
    bad = {
        "cat/cut.jpg": good[: len(good) // 2],
        "cat/empty.png": b"",
        "dog/text.jpg": b"this is no image",
        "dog/header.png": encoded(noise())[:20],
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
    return sorted(root / name for name in bad)


def test_images_that_cannot_be_decoded_stop(tmp_path):
    """Truncated, empty and unsupported files are counted and named, with the option that skips them."""
    bad = corrupt(fill(tmp_path))
    with pytest.raises(DataError) as error:
        load_folder(tmp_path)
    message = one_line(error)
    assert "4 of 24" in message
    assert all(str(path.relative_to(tmp_path)) in message for path in bad)
    assert "--set data.skip_bad=true" in message


def test_images_that_cannot_be_decoded_are_left_out_on_request(tmp_path):
    """With data.skip_bad, exactly the good ones remain."""
    fill(tmp_path)
    good = sorted(p.read_bytes() for p in tmp_path.rglob("*.png"))
    corrupt(tmp_path)
    dataset = load_folder(tmp_path, skip_bad=True)
    assert sorted(image for split in dataset.splits.values() for image in rows(split)[0]) == good


def test_checks_find_each_once(tmp_path):
    """The checks name exactly the damaged files, in the given order."""
    bad = corrupt(fill(tmp_path))
    assert list(ImageChecks(0).bad(sorted(p for p in tmp_path.rglob("*.*")))) == bad


def test_a_split_with_nothing_left_is_refused(tmp_path):
    """Skipping every image of a split is an error, not an empty split."""
    fill(tmp_path / "train")
    fill(tmp_path / "test", count=1)
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none left in the test split"):
        load_folder(tmp_path, skip_bad=True)


def test_folder_obeys_fractions_and_seed(tmp_path):
    """The splits have halves and quarters of each class; existing splits refuse fractions."""
    fill(tmp_path / "open")
    dataset = load_folder(tmp_path / "open", split_fractions=(0.6, 0.2, 0.2), split_seed=3)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 12, "validation": 4, "test": 4}
    other = load_folder(tmp_path / "open", split_fractions=(0.6, 0.2, 0.2), split_seed=4)
    assert sorted(rows(dataset.splits["test"])[0]) != sorted(rows(other.splits["test"])[0])
    assert dataset.options == ("split_fractions", "split_seed", "stratify", "near_duplicates")
    fill(tmp_path / "split/train")
    assert load_folder(tmp_path / "split").options == ("near_duplicates",)
