"""Label files: a table of image paths with one or many labels, as people have them."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

import training
from training import DataConfig, ModelConfig, Recipe
from training.data.readers.loading import load_dataset
from training.data.summary import summarize, summary_lines
from training.recipe.keys import parse_override
from zoo.common.errors import DataError

COUNT = 40


def image(number):
    """Return an image whose left half shows whether its number is even."""
    values = np.random.default_rng(number).integers(0, 60, (12, 12, 3), "uint8")
    values[:, :6, number % 2] = 220
    return Image.fromarray(values)


def write(root, rows, name="labels.csv", folder="photos", count=COUNT):
    """Write images 0.jpg to 39.jpg below a folder, and a table; returns its path."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image(i).save(root / folder / f"{i}.jpg")
    (root / name).write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return root / name


def load(path, **options):
    """Return the dataset of a label file, checked."""
    return load_dataset(DataConfig("folder", path=str(path), **options))


def labels_of(dataset):
    """Return the labels of all examples by the content of their image."""
    return {
        x: np.asarray(y).tolist() for split in dataset.splits.values() for x, y in split.examples.as_numpy_iterator()
    }


def wanted(root, label, folder="photos"):
    """Return the label of each image by its content."""
    return {(root / folder / f"{i}.jpg").read_bytes(): label(i) for i in range(COUNT)}


PATHS = {
    "relative path": lambda i: f"photos/{i}.jpg",
    "name": lambda i: f"{i}.jpg",
    "id": str,
    "backslashes": lambda i: f"photos\\{i}.jpg",
    "dot": lambda i: f"./photos/{i}.jpg",
    "elsewhere": lambda i: f"data/photos/{i}.jpg",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_paths_of_images(path, tmp_path):
    """However a row names its image."""
    rows = [("image", "kind"), *((path(i), ("odd", "even")[i % 2]) for i in range(COUNT))]
    dataset = load(write(tmp_path, rows))
    assert (dataset.labels, dataset.task) == (("even", "odd"), "classify")
    assert labels_of(dataset) == wanted(tmp_path, lambda i: 1 - i % 2)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 32, "validation": 4, "test": 4}
    assert summarize(dataset)["notes"] == [
        "Labels: kind (change by data.target)",
        "target 'kind': classification, 2 classes",
    ]


def test_the_column_of_paths_may_be_any(tmp_path):
    """The one that names images is found; data.columns and data.target name them."""
    rows = [("n", "kind", "file"), *((i % 7, "ab"[i % 2], f"photos/{i}.jpg") for i in range(COUNT))]
    table = write(tmp_path, rows)
    assert load(table).labels == ("a", "b")
    assert load(table, target="n").labels == tuple("0123456")
    assert load(table, columns=("file",), target="kind").labels == ("a", "b")
    with pytest.raises(DataError, match=r"one of the columns n, kind, file. Received: data.columns='path'"):
        load(table, columns=("path",))
    with pytest.raises(DataError, match=r"data.target='kinds'. Did you mean 'kind'"):
        load(table, target="kinds")


def test_a_folder_with_labels(tmp_path):
    """labels.csv beside the images is found; folders of classes come first."""
    write(tmp_path, [("id", "kind"), *((i, "ab"[i % 2]) for i in range(COUNT))])
    assert load(tmp_path).labels == ("a", "b")


def test_several_labels(tmp_path):
    """Columns of 0 and 1 are labels, where an empty cell is unknown; or one cell has them all."""
    rows = [("id", "red", "left"), *((i, int(i % 2 == 0), int(i % 3 == 0)) for i in range(COUNT))]
    dataset = load(write(tmp_path, rows))
    assert (dataset.task, dataset.labels) == ("multilabel", ("red", "left"))
    assert labels_of(dataset) == wanted(tmp_path, lambda i: [int(i % 2 == 0), int(i % 3 == 0)])
    rows[4] = (3, "", 1)
    found = labels_of(load(write(tmp_path, rows), target=("red", "left"), task="multilabel"))
    assert found[(tmp_path / "photos/3.jpg").read_bytes()] == [-1, 1]
    for separator in ("|", ";", " "):
        lists = [("id", "kinds"), *((i, separator.join(["a", "b", "c"][: i % 3 + 1])) for i in range(COUNT))]
        dataset = load(write(tmp_path, lists), task="multilabel")
        assert labels_of(dataset) == wanted(tmp_path, lambda i: [1, int(i % 3 > 0), int(i % 3 > 1)])


def test_several_numbers(tmp_path):
    """A list of numbers has an output for each, or one for all of them, in their units."""
    rows = [("id", "x", "y", "who"), *((i, 1.5 * i, -i, "me") for i in range(COUNT))]
    path = write(tmp_path, rows)
    for task, names in (("regress", []), ("", ["x", "y"])):
        dataset = load(path, target=("x", "y"), task=task)
        assert (dataset.task, dataset.labels) == (task or "multitask", ("x", "y"))
        assert [output.name for output in dataset.outputs] == names
        assert labels_of(dataset) == wanted(tmp_path, lambda i: [1.5 * i, -float(i)])
    assert parse_override('data.target=["x","y"]') == ("data.target", ["x", "y"])
    made = Recipe("t", data=DataConfig("folder")).override(**{"data.target": ["x", "y"]})
    assert made.data.target == ("x", "y")
    assert Recipe.from_json(made.to_json()) == made
    assert made.override(**{"data.target": 5}).data.target == "5"


NUMBERS = {
    "decimal comma": (lambda i: f"{i},5", "regression, a number, read as decimal comma"),
    "currency": (lambda i: f"{i},50 €", "regression, a number, read as decimal comma, €"),
    "thousands": (lambda i: f"{i + 1}.000,5", "regression, a number, read as decimal comma"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_read_as_in_a_table(kind, tmp_path):
    """A decimal comma, a currency, points between thousands: one rule for tables and label files."""
    cell, said = NUMBERS[kind]
    rows = [("id", "price"), *((i, f'"{cell(i)}"') for i in range(COUNT))]
    dataset = load(write(tmp_path, rows))
    assert dataset.task == "regress"
    assert [note for note in dataset.notes if "target 'price'" in note] == [
        f"target 'price': {said}; data.task=classify makes it classes"
    ]
    found = {"thousands": lambda i: 1000.0 * (i + 1) + 0.5}.get(kind, lambda i: i + 0.5)
    assert labels_of(dataset) == wanted(tmp_path, lambda i: [found(i)])


@pytest.mark.parametrize("cell", ["", "NA", " ? ", "None"])
def test_rows_without_a_label_are_left_out(cell, tmp_path):
    """As those of a table; the summary says how many, and the image is in no split."""
    rows = [("id", "kind"), *((i, "ab"[i % 2]) for i in range(COUNT))]
    path = write(tmp_path, [*rows[:4], (3, cell), *rows[5:]])
    dataset = load(path)
    expected = wanted(tmp_path, lambda i: i % 2)
    del expected[(tmp_path / "photos/3.jpg").read_bytes()]
    assert labels_of(dataset) == expected
    assert any(note.startswith("Left out: 1 rows without a target") for note in dataset.notes)
    assert not any("without a row" in note for note in dataset.notes)
    if cell.strip():
        assert load(path, missing=("nothing",)).labels == tuple(sorted((cell.strip(), "a", "b")))


def test_classes_of_a_label_file_may_be_rare(tmp_path):
    """A class with one image is said, as in a folder; more than a thousand classes are no mistake."""
    rows = [("id", "kind"), *((i, "ab"[i % 2]) for i in range(COUNT - 1)), (COUNT - 1, "rare")]
    dataset = load(write(tmp_path, rows))
    assert dataset.labels == ("a", "b", "rare")
    assert any("A single example of rare" in note for note in summarize(dataset)["notes"])
    with pytest.raises(DataError, match=r"at least two classes in the target 'kind'. Received: 1 different values"):
        load(write(tmp_path, [("id", "kind"), *((i, "a") for i in range(COUNT))]))


def test_unknown_labels_are_no_reason_for_numbers(tmp_path):
    """Columns of 0, 1 and missing cells are labels; a row without any is left out."""
    rows = [("id", "red", "left"), *((i, int(i % 2 == 0), int(i % 3 == 0)) for i in range(COUNT))]
    rows[4], rows[5] = (3, "NA", 1), (4, "", "NA")
    dataset = load(write(tmp_path, rows))
    assert (dataset.task, dataset.labels) == ("multilabel", ("red", "left"))
    found = labels_of(dataset)
    assert found[(tmp_path / "photos/3.jpg").read_bytes()] == [-1, 1]
    assert (tmp_path / "photos/4.jpg").read_bytes() not in found
    assert "1 labels are unknown, and neither learned nor measured" in dataset.notes
    assert any("Left out: 1 rows without a target, 'NA' in 2" in note for note in dataset.notes), dataset.notes


def test_a_column_of_splits(tmp_path):
    """Its names are those of folders; without validation, a tenth of training validates."""
    parts = ["Train"] * 30 + ["Test"] * 10
    rows = [("id", "kind", "split"), *((i, "ab"[i % 2], parts[i]) for i in range(COUNT))]
    dataset = load(write(tmp_path, rows))
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 28, "validation": 2, "test": 10}
    assert "split_fractions" not in dataset.options


def test_special_files_do_not_block(tmp_path):
    """A FIFO with the name of an image has no writer; it is named, or left out."""
    path = write(tmp_path, [("id", "kind"), *((i, "ab"[i % 2]) for i in range(COUNT))])
    (tmp_path / "photos/3.jpg").unlink()
    os.mkfifo(tmp_path / "photos/3.jpg")
    with pytest.raises(DataError, match=r"1 of 40 .* photos/3.jpg \(it is a FIFO\)"):
        load(path)
    assert sum(split.count for split in load(path, skip_bad=True).splits.values()) == COUNT - 1


def test_what_is_missing_is_named(tmp_path):
    """Rows without image, images without row, rows without label, two labels, and no images at all."""
    rows = [("id", "kind"), *((i, "ab"[i % 2]) for i in range(COUNT))]
    with pytest.raises(DataError, match=r"1 of 41 rows without: 99.jpg. Correct the paths"):
        load(write(tmp_path, [*rows, ("99.jpg", "a")]))
    assert sum(split.count for split in load(tmp_path / "labels.csv", skip_bad=True).splits.values()) == COUNT
    dataset = load(write(tmp_path, rows[:-3]))
    assert (
        "Left out: 3 images without a row in labels.csv (photos/37.jpg, photos/38.jpg, photos/39.jpg)"
        in (summarize(dataset)["notes"])
    )
    with pytest.raises(DataError, match=r"one row for each image .* photos/3.jpg with different labels"):
        load(write(tmp_path, [*rows, (3, "a")]))
    assert labels_of(load(write(tmp_path, [*rows, (3, "b")]))) == wanted(tmp_path, lambda i: i % 2)
    with pytest.raises(DataError, match=r"a column of paths of images, below the folder .* with the columns id, kind"):
        load(write(tmp_path / "empty", [("id", "kind"), ("x", "a"), ("y", "b")], count=0))
    with pytest.raises(DataError, match=r"a number in every row of the target 'kind'. Received: 'a' in row 1"):
        load(write(tmp_path, rows), task="regress")


def test_training_and_growth(tmp_path):
    """A run learns the labels; a changed label file is said."""
    table = write(tmp_path, [("id", "kind"), *((i, "ab"[i % 2]) for i in range(COUNT))])
    data = DataConfig("folder", path=str(table), image_size=(12, 12), channels=3, batch_size=8)
    made = Recipe("t", ModelConfig("mlp_tiny"), data, epochs=12).override(**{"log.every": 0, "log.misclassified": 0})
    run = training.train(made, run=tmp_path / "run")
    assert training.evaluate(run).accuracy == 1.0
    assert "Labels: kind (change by data.target)" in list(summary_lines(run.statistics()["summary"]))
    table.write_text(table.read_text().replace("4,a", "4,b"))
    with pytest.warns(UserWarning, match=r"1 changed \(labels.csv\) of 41"):
        training.evaluate(run)
