"""A run remembers its files: growth, loss and edits are said, refused or used as asked, and move no other file."""

from __future__ import annotations

import collections
import os
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

import training
import zoo
from training import DataConfig, ModelConfig, Recipe, Run
from training.data.pipeline.opening import open_pipeline, training_statistics
from training.data.readers.changes import Changes, find_changes, require_unchanged
from training.data.readers.loading import open_dataset
from training.data.splits import NAMES, place_of, split_by_name, split_indices
from training.learning.evaluation import check_data, open_data
from zoo.common.errors import BadOption, DataError, RunError

EACH = 30


def fill(root, numbers=range(EACH), classes=("cat", "dog")):
    """Write different images of some classes; returns the root."""
    for kind, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in numbers:
            values = np.random.default_rng(1000 * kind + i).integers(0, 255, (12, 12, 3), "uint8")
            Image.fromarray(values).save(root / name / f"{i:03d}.png")
    return root


def recipe(root, **options):
    """Return a recipe for a folder of images."""
    data = DataConfig("folder", path=str(root), image_size=(12, 12), channels=3, batch_size=8, **options)
    return Recipe("t", ModelConfig("mlp_tiny"), data).override(**{"log.every": 0, "log.misclassified": 0})


def run_of(root, place, **options):
    """Return a run as training begins it."""
    made = recipe(root, **options)
    return Run.create(made, place, None, training_statistics(open_pipeline(made, zoo.spec("mlp_tiny"))))


def splits_of(dataset):
    """Return the split of each file by its name."""
    root = dataset.files.root
    return {str(path.relative_to(root)): name for name, paths in dataset.files.splits.items() for path in paths}


def opened(run, **options):
    """Return the splits of a run's files, and what is said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = splits_of(open_data(run, **options).dataset)
    return found, [str(one.message) for one in said if "data of the run" in str(one.message)]


@pytest.fixture
def folder(tmp_path):
    """A folder of images."""
    return fill(tmp_path / "images")


def test_nothing_is_said_of_the_same_files(folder, tmp_path):
    """Also after they are touched, or copied with the folder around them."""
    run = run_of(folder, tmp_path / "run")
    before = splits_of(open_dataset(run.recipe.data))
    assert opened(run, changed_data="refuse") == (before, [])
    for path in folder.rglob("*.png"):
        os.utime(path, (1, 1))
    assert opened(run, changed_data="refuse") == (before, [])
    assert dict(collections.Counter(before.values())) == {"train": 48, "validation": 6, "test": 6}


def test_files_that_were_added(folder, tmp_path):
    """Said with number and names, and not used; with "all" each joins the split of its hash, and no file moves."""
    run = run_of(folder, tmp_path / "run")
    before, _ = opened(run)
    fill(folder, range(EACH, EACH + 10))
    found, (said,) = opened(run)
    assert found == before
    assert said.startswith("The data of the run changed since its training: 20 added (cat/030.png, cat/031.png, cat/03")
    assert said.endswith(f"of 60 in {folder}. Added files are not used")
    more, (said,) = opened(run, changed_data="all")
    assert said.endswith("Added files are used")
    assert len(more) == 80
    assert {name: more[name] for name in before} == before
    assert set(more.values()) == set(NAMES)
    with pytest.raises(DataError, match=r"20 added.*--changed-data known"):
        open_data(run, changed_data="refuse")
    # Resuming uses the same files.
    assert opened(run, exact=True)[0] == before


def test_files_that_were_removed_or_changed(folder, tmp_path):
    """The others stay where they are; resuming refuses, unless it is asked to go on."""
    run = run_of(folder, tmp_path / "run")
    before, _ = opened(run)
    gone = [name for name, split in before.items() if split == "train"][:3]
    for name in gone:
        (folder / name).unlink()
    edited = next(name for name, split in before.items() if split == "test")
    shutil.copy(folder / next(name for name in before if name not in (*gone, edited)), folder / edited)
    found, (said,) = opened(run)
    assert found == {name: split for name, split in before.items() if name not in gone}
    assert "3 removed (" in said
    assert f"1 changed ({edited})" in said
    with pytest.raises(DataError, match=r"3 removed.*1 changed.*Restore the files, or proceed"):
        open_data(run, exact=True)
    assert opened(run, exact=True, changed_data="known")[0] == found


def test_the_order_of_examples_stays(folder, tmp_path):
    """Added files change neither the order nor the numbers of examples: a resumed run goes on exactly."""
    run = run_of(folder, tmp_path / "run")
    before = open_data(run).raw("train", 48)
    fill(folder, range(200, 220))
    with pytest.warns(UserWarning, match="40 added"):
        after = open_data(run).raw("train", 48)
    for one, two in zip(before, after, strict=True):
        assert np.array_equal(one, two)


def test_new_classes_need_a_new_run(folder, tmp_path):
    """They are left out as they are added; with "all" the run has no place for them."""
    run = run_of(folder, tmp_path / "run")
    fill(folder, range(5), classes=("aardvark",))
    with pytest.warns(UserWarning, match="5 added"):
        pipeline = open_data(run)
    assert pipeline.dataset.labels == ("cat", "dog")
    labels = {int(y) for y in pipeline.dataset.splits["train"].labels().as_numpy_iterator()}
    assert labels == {0, 1}
    with pytest.raises(DataError, match=r"classes of the run, cat, dog. Received: .* with aardvark"):
        open_data(run, changed_data="all")


def test_files_in_split_folders(tmp_path):
    """An added file is in the split of its folder, and validation images stay those that were drawn from training."""
    fill(tmp_path / "data" / "train")
    fill(tmp_path / "data" / "test", range(100, 110))
    run = run_of(tmp_path / "data", tmp_path / "run")
    before, _ = opened(run)
    fill(tmp_path / "data" / "test", range(110, 115))
    fill(tmp_path / "data" / "train", range(300, 330))
    assert opened(run)[0] == before
    more, _ = opened(run, changed_data="all")
    assert {name: more[name] for name in before} == before
    assert collections.Counter(more.values())["test"] == 30


def test_what_was_left_out_was_not_added(tmp_path):
    """Images in a folder that is no split, hidden ones, bad ones, and those without a label."""
    data = tmp_path / "data"
    for name in ("seg_train", "seg_test", "seg_pred"):
        fill(data / name)
    fill(data, range(2), classes=("seg_pred",))
    shutil.copytree(data / "seg_train/cat", data / "seg_train/cat/.hidden")
    (data / "seg_train/cat/000.png").write_bytes(b"no image")
    run = run_of(data, tmp_path / "run", skip_bad=True)
    assert opened(run, changed_data="refuse")[1] == []
    fill(tmp_path / "photos")
    rows = "".join(f"{kind}/{i:03d}.png,{kind}\n" for kind in ("cat", "dog") for i in range(25))
    (tmp_path / "photos" / "labels.csv").write_text("file,kind\n" + rows)
    run = run_of(tmp_path / "photos" / "labels.csv", tmp_path / "labelled")
    assert opened(run, changed_data="refuse")[1] == []
    fill(tmp_path / "photos", range(90, 91))
    assert "2 added (cat/090.png, dog/090.png) of 51" in opened(run)[1][0]


def test_texts_and_tables_are_remembered_too(tmp_path):
    """Files of texts like images; a table as a whole."""
    for name in ("a", "b"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "texts" / name / f"{i}.txt").write_text(f"text {name} {i}")
    made = Recipe(
        "t", ModelConfig("encoder_tiny"), DataConfig("text_folder", path=str(tmp_path / "texts"), length=(4,))
    )
    pipeline = open_pipeline(made, zoo.spec("encoder_tiny"))
    run = Run.create(made, tmp_path / "run", pipeline.text, training_statistics(pipeline))
    (tmp_path / "texts" / "a" / "new.txt").write_text("new text")
    found, (said,) = opened(run)
    assert (len(found), "1 added (a/new.txt) of 20" in said) == (20, True)

    table = tmp_path / "table.csv"
    table.write_text("x,y\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(40)))
    made = Recipe("t", ModelConfig("mlp_tiny"), DataConfig("table", path=str(table)))
    run = Run.create(made, tmp_path / "tabular", None, training_statistics(open_pipeline(made, zoo.spec("mlp_tiny"))))
    check_data(run, "refuse")
    table.write_text(table.read_text() + "41,a\n")
    with pytest.raises(DataError, match=r"1 changed \(table.csv\)"):
        check_data(run, exact=True)


def test_runs_of_earlier_versions_keep_their_splits(folder, tmp_path):
    """They store no files: the shuffle of before splits them."""
    run = run_of(folder, tmp_path / "run")
    (run.path / "files.json").unlink()
    names = sorted(splits_of(open_dataset(run.recipe.data)))
    parts = split_indices(60, DataConfig(), [0] * 30 + [1] * 30)
    assert opened(run) == ({names[i]: name for name, part in parts.items() for i in part}, [])


def test_damaged_lists_of_files_are_refused(folder, tmp_path):
    """In one line, with the remedy."""
    run = run_of(folder, tmp_path / "run")
    (run.path / "files.json").write_text('{"version": 7}')
    with pytest.raises(RunError, match=r"files\.json: files is missing\. Restore"):
        open_data(run)


def test_choices_are_checked():
    """Before anything is read."""
    with pytest.raises(BadOption, match="changed_data must be one of known, all, refuse"):
        require_unchanged(Changes(__file__), "some", exact=False)


@pytest.mark.parametrize("stratify", [True, False])
def test_hashes_split_by_fractions(stratify):
    """Exactly by class, or by chance; another seed gives another split; every file is in one."""
    names = [f"{kind}/{i}.jpg" for kind in "ab" for i in range(500)]
    classes = [0] * 500 + [1] * 500
    one, other = (split_by_name(names, DataConfig(stratify=stratify, split_seed=s), classes) for s in (0, 1))
    assert sorted(i for part in one.values() for i in part) == list(range(1000))
    assert one != other
    counts = {name: len(part) for name, part in one.items()}
    if stratify:
        assert counts == {"train": 800, "validation": 100, "test": 100}
    else:
        assert abs(counts["train"] - 800) < 60
        assert min(counts.values()) > 60


def test_without_strata_no_file_moves_another():
    """Half of the files are removed, and others added: those that stay are where they were."""
    config = DataConfig(stratify=False)
    names = [f"a/{i}.jpg" for i in range(400)]
    new = names[::2] + [f"a/new{i}.jpg" for i in range(300)]
    first, second = (
        {some[i]: name for name, part in split_by_name(some, config, [0] * len(some)).items() for i in part}
        for some in (names, new)
    )
    assert all(first[name] == second[name] for name in names[::2])
    # With strata, a few next to the borders move.
    strata = [
        {some[i]: name for name, part in split_by_name(some, DataConfig(), [0] * len(some)).items() for i in part}
        for some in (names, names[:-20])
    ]
    assert sum(strata[0][name] != strata[1][name] for name in names[:-20]) < 20


def test_few_files_fill_every_split():
    """Chance leaves none empty."""
    for count in range(3, 12):
        names = [f"a/{i}" for i in range(count)]
        found = split_by_name(names, DataConfig(stratify=False), [0] * count)
        assert set(found) == set(NAMES)


def test_hashes_are_the_same_on_every_system():
    """The value is fixed, and accents may be composed or not."""
    assert place_of("cat/1.jpg", 0) == pytest.approx(0.27339744579504777, abs=1e-15)
    assert place_of("caf\u00e9.jpg", 3) == place_of("cafe\u0301.jpg", 3)
    assert place_of("a", 0) != place_of("a", 1)


def test_changes_are_found_by_size_and_time_first(folder, tmp_path, monkeypatch):
    """Files that look the same are not read."""
    run = run_of(folder, tmp_path / "run")
    stored = run.files()
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail(f"{path} was read"))
    assert not find_changes(stored)


def test_evaluation_and_resuming_say_what_changed(folder, tmp_path):
    """With the values that they compute: the metrics of the known files, or of all."""
    made = recipe(folder).override(epochs=2)
    run = training.train(made, run=tmp_path / "run")
    before = training.evaluate(run)
    fill(folder, range(EACH, EACH + 20))
    with pytest.warns(UserWarning, match="40 added"):
        assert training.evaluate(run) == before
    with pytest.warns(UserWarning, match="Added files are used"):
        assert training.evaluate(run, changed_data="all").examples > before.examples
    with pytest.raises(DataError, match="40 added"):
        training.evaluate(run, changed_data="refuse")
    with pytest.warns(UserWarning, match="40 added"):
        extended = training.resume(run, overrides={"epochs": 3})
    assert [row["epoch"] for row in extended.metrics()] == [1, 2, 3]
