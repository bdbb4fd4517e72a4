"""Images that change while a model trains are named, or skipped where the recipe says so."""

from __future__ import annotations

import shutil
import warnings

import pytest

import training.data.pipeline.pipeline as pipeline_module

pytestmark = pytest.mark.tensorflow

EACH = 40


def recipe_of(root, **changes):
    """A small recipe on a folder of images."""
    import training
    from training.recipe.recipe import resolve

    values = {"data.path": str(root), "data.image_size": [16, 16], "data.batch_size": 8, "epochs": 3}
    return resolve(training.get_recipe("folder_cnn"), (values | changes).items())


def damage(path):
    """Cut an image off, so that it cannot be decoded."""
    path.write_bytes(path.read_bytes()[:40])


def paths_of(run, split):
    """The images of a split that a run stores."""
    from pathlib import Path

    stored = run.files()
    return [Path(stored["root"]) / row[0] for row in stored["files"][split]]


def train(root, path, change=None, stop=0, **changes):
    """Train; return the run and the warnings. After the first epoch `change` is called, and after `stop` it ends."""
    import training
    from training.fit.loop import train_new

    def observe(row):
        if row["epoch"] == 1 and change:
            change(training.runs.run.Run.open(path))
        if row["epoch"] == stop:
            raise InterruptedError

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if stop:
            with pytest.raises(InterruptedError):
                train_new(recipe_of(root, **changes), path, observe=observe)
            return training.runs.run.Run.open(path), lines(said)
        return train_new(recipe_of(root, **changes), path, observe=observe), lines(said)


def lines(said):
    """The lines about images."""
    return [str(one.message) for one in said if "decoded" in str(one.message)]


def weights(run):
    """The trained weights of a run."""
    from training.learning.evaluation import load_model

    return load_model(run).get_weights()


def test_damaged_images_are_named(tmp_path, write_images):
    """An image that is cut off after the check, and the remedy; other errors stay as they are."""
    import zoo
    from training.data.pipeline.changed_images import naming_images
    from training.data.pipeline.opening import open_pipeline
    from zoo.common.errors import DataError

    recipe = recipe_of(write_images(tmp_path / "images", EACH))
    pipeline = open_pipeline(recipe, zoo.spec(recipe.model.name))

    def read():
        examples = pipeline.dataset.splits["train"].examples
        return len(list(pipeline.encoder.decoded(examples)))

    with naming_images(pipeline):
        assert read() == len(pipeline.dataset.files.splits["train"])
    bad = next(path for path in pipeline.dataset.files.splits["train"])
    damage(bad)
    reason = rf"1 \(.*{bad.name}: .*\) that cannot be decoded any more.*Then resume\."
    with pytest.raises(DataError, match=reason), naming_images(pipeline, "Then resume."):
        read()
    with pytest.raises(ValueError, match="another"), naming_images(pipeline):
        raise ValueError("another")
    bad.unlink()
    with pytest.raises(DataError, match=bad.name), naming_images(pipeline):
        read()


def test_images_of_imagenet_are_named(tmp_path, write_images):
    """Images that are not checked in advance are named too."""
    import zoo
    from training import DataConfig, ModelConfig, Recipe
    from training.data.pipeline.changed_images import ChangedImages, naming_images
    from training.data.pipeline.opening import open_pipeline

    root = tmp_path / "images"
    for split in ("train", "val"):
        write_images(root / split, 4)
    damage(root / "val" / "dog" / "002.jpg")
    recipe = Recipe("a", ModelConfig("resnet_tiny"), DataConfig("imagenet2012", path=str(root), image_size=(16, 16)))
    pipeline = open_pipeline(recipe, zoo.spec("resnet_tiny"))
    with pytest.raises(ChangedImages, match=r"Received: 1 \(val/dog/002.jpg: "), naming_images(pipeline):
        list(pipeline.evaluate("validation"))


def test_skipped_images_leave_the_others_their_places():
    """In training the next image takes the place, which may be the first; in other splits none does."""
    from training.data.readers.changes import enough_left, find_changes, without_skipped

    rows = {"train": [["a"], ["b"], ["c"], ["d"]], "test": [["e"], ["f"]]}
    stored = {"files": rows, "unused": ["g"]}
    assert without_skipped(stored, {}) is stored
    found = without_skipped(stored, {"b": "", "d": "", "e": ""})
    assert found["files"] == {"train": [["a"], ["c"], ["c"], ["a"]], "test": [["f"]]}
    assert found["unused"] == ["g", "b", "d", "e"]
    assert without_skipped(stored, dict.fromkeys("abcd"))["files"]["train"] == []
    assert enough_left(stored, {"b": "", "d": "", "e": ""})
    assert not enough_left(stored, {"b": "", "c": "", "d": ""})
    row = [0, 0, ""]
    known = {"version": 1, "root": "/none", "suffixes": [], "labels": [], "unused": [], "others": []}
    known["files"] = {"train": [["a", *row], ["b", *row]]}
    assert find_changes(known).removed == ("a", "b")
    assert find_changes(known, {"a": ""}).removed == ("b",)


@pytest.mark.parametrize(
    "serving", ["stream", *(pytest.param(name, marks=pytest.mark.slow) for name in ("memory", "resumed stream"))]
)
def test_images_are_skipped_while_a_model_trains(tmp_path, write_images, monkeypatch, serving):
    """Cut off and removed images become skips, stored and said in a line; resuming goes on to the bit."""
    import numpy as np

    from training.fit.loop import resume_run

    root = write_images(tmp_path / "images", EACH)
    # In memory, the test images are read at the end alone.
    splits = ("test",) if serving == "memory" else ("train", "validation", "test")
    if serving != "memory":
        monkeypatch.setattr(pipeline_module, "MEMORY", 0)
    names = []

    def change(run):
        for split in splits:
            first, second = paths_of(run, split)[:2]
            damage(first)
            second.unlink()
            names.extend(path.relative_to(root).as_posix() for path in (first, second))

    shutil.copytree(root, tmp_path / "whole")
    run, said = train(root, tmp_path / "run", change, **{"data.skip_bad": True})
    assert len(said) == 1
    assert f"Skipped, as they cannot be decoded any more: {len(names)} (" in said[0]
    assert sorted(run.statistics()["skipped"]) == sorted(names)
    assert run.statistics()["summary"]["notes"][-1].startswith(
        f"Skipped, as they cannot be decoded any more: {len(names)}"
    )
    counts = {split: len(paths_of(run, split)) for split in ("train", "validation", "test")}
    expected = {split: count - 2 * (split in splits and split != "train") for split, count in counts.items()}
    assert run.result()["splits"] == expected
    assert run.result()["test"]["examples"] == expected["test"]
    assert [row["epoch"] for row in run.metrics()] == [1, 2, 3]
    if serving != "resumed stream":
        return

    shutil.rmtree(root)
    shutil.copytree(tmp_path / "whole", root)
    names.clear()
    stopped, _ = train(root, tmp_path / "stopped", change, stop=2, **{"data.skip_bad": True})
    # Restored images stay skipped, so that the training goes on as it would have.
    shutil.copy(tmp_path / "whole" / names[0], root / names[0])
    again = resume_run(stopped)
    assert all(np.array_equal(*pair) for pair in zip(weights(run), weights(again), strict=True))
    assert again.result()["test"] == run.result()["test"]


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["disk", "class"])
def test_images_are_not_skipped_where_too_few_are_left(tmp_path, write_images, monkeypatch, gone):
    """A folder that vanished, or the whole of a class, ends the training, which resumes with all once it is back."""
    from training.fit.loop import resume_run
    from training.runs.run import Run
    from zoo.common.errors import DataError

    monkeypatch.setattr(pipeline_module, "MEMORY", 0)
    root = write_images(tmp_path / "images", EACH)
    for path in sorted((root / "dog").iterdir())[EACH // 2 :]:
        path.unlink()
    moved = root if gone == "disk" else root / "dog"
    with pytest.raises(DataError, match=r"cannot be decoded any more|none left of 'dog'|Expected"):
        train(root, tmp_path / "run", lambda _: moved.rename(tmp_path / "elsewhere"), **{"data.skip_bad": True})
    (tmp_path / "elsewhere").rename(moved)
    run = resume_run(Run.open(tmp_path / "run"))
    assert run.finished
    assert "skipped" not in run.statistics()


@pytest.mark.slow
def test_images_end_a_training_that_skips_none(tmp_path, write_images, monkeypatch):
    """Without the option, one line with the name; the restored image lets it go on."""
    from training.fit.loop import resume_run
    from zoo.common.errors import DataError

    monkeypatch.setattr(pipeline_module, "MEMORY", 0)
    root = write_images(tmp_path / "images", EACH)
    shutil.copytree(root, tmp_path / "whole")
    with pytest.raises(DataError, match=r"Received: 1 \(.*\.jpg: .*zoo train --resume"):
        train(root, tmp_path / "run", lambda run: damage(paths_of(run, "train")[0]))
    shutil.copytree(tmp_path / "whole", root, dirs_exist_ok=True)
    from training.runs.run import Run

    run = resume_run(Run.open(tmp_path / "run"))
    assert run.finished
    assert "skipped" not in run.statistics()


def test_images_are_skipped_in_an_evaluation(tmp_path, write_images, monkeypatch, zoo_command):
    """An image that breaks between the check and the reading is named, and left out where the recipe says so."""
    import training
    from training.learning import evaluation
    from zoo.common.errors import DataError

    root = write_images(tmp_path / "images", EACH)
    run, _ = train(root, tmp_path / "run", epochs=1, **{"data.skip_bad": True, "schedule.warmup_epochs": 0})
    before, bad = run.result()["test"]["examples"], paths_of(run, "test")[3]
    opened, whole = evaluation.open_data, bad.read_bytes()

    def open_then_break(*arguments, **options):
        pipeline = opened(*arguments, **options)
        damage(bad)
        return pipeline

    monkeypatch.setattr(evaluation, "open_data", open_then_break)
    with pytest.warns(UserWarning, match=rf"Left out of the evaluation.*1 \(.*{bad.name}: "):
        assert training.evaluate(run).examples == before - 1
    bad.write_bytes(whole)
    skipping = run.recipe.override(**{"data.skip_bad": False})
    run.recipe = skipping
    with pytest.raises(DataError, match=rf"{bad.name} \(.*data.skip_bad=true"):
        training.evaluate(run)
