"""What is kept while a run trains: two checkpoints, of which one is whole at any moment."""

from __future__ import annotations

import contextlib
import os
import resource

import numpy as np
import pytest

from training import DataConfig, Recipe, Run
from training.checkpoints.files import Progress, _read
from training.checkpoints.manager import CheckpointManager
from zoo.common.errors import RunError

RECIPE = Recipe("test", data=DataConfig("digits", batch_size=32))


def network(units=3):
    """Return a small compiled network."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, name="out")], name="net")
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def run(tmp_path):
    """A run directory that was just made."""
    return Run.create(RECIPE, tmp_path / "run")


@pytest.fixture(scope="module")
def model():
    """A network whose first bias tells which checkpoint it was saved in."""
    return network()


def save(manager, model, *steps):
    """Save a checkpoint for each of some steps."""
    for step in steps:
        model.layers[-1].bias.assign(np.full(3, step, "float32"))
        manager.save(model, Progress(step=step))


def steps(manager):
    """Return the steps at which the last checkpoint and the one before it stand."""
    return [_read(path)[1].step for path in (manager.last, manager.previous)]


def spoil(path):
    """Change a bit near the end of a file, where its data is."""
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def test_two_newest_are_kept(run, model):
    """And the best, which is a file of its own."""
    manager = CheckpointManager(run)
    assert not manager.exists
    assert manager.load(model) == Progress()
    save(manager, model, 1)
    assert not manager.previous.exists()
    manager.save_best(model, Progress(step=1))
    save(manager, model, 2, 3)
    assert steps(manager) == [3, 2]
    assert _read(manager.best)[1].step == 1
    assert sorted(p.name for p in run.checkpoints.iterdir()) == [
        "best.safetensors",
        "last.safetensors",
        "previous.safetensors",
    ]
    again = CheckpointManager(run)
    assert again.exists
    assert again.load(network()).step == 3
    assert again.damage == ""


def test_damaged_one_gives_way_to_the_one_before(run, model):
    """Which is said, stays so for as long as nothing new is saved, and is what is kept beside the next."""
    save(CheckpointManager(run), model, 1, 2)
    spoil(run.checkpoints / "last.safetensors")
    manager, other = CheckpointManager(run), network()
    with pytest.warns(UserWarning, match=r"last\.safetensors: the content does not match the checksum.*step 1"):
        assert manager.load(other).step == 1
    assert "previous.safetensors" in manager.damage
    assert other.layers[-1].bias.numpy().tolist() == [1, 1, 1]
    assert manager.load(other).step == 1
    save(manager, model, 2)
    assert steps(manager) == [2, 1]
    save(manager, model, 3)
    assert steps(manager) == [3, 2]


def test_missing_one_gives_way_too(run, model):
    """As after a move of files that was interrupted."""
    save(CheckpointManager(run), model, 1, 2)
    (run.checkpoints / "last.safetensors").unlink()
    manager = CheckpointManager(run)
    assert manager.exists
    with pytest.warns(UserWarning, match=r"last\.safetensors"):
        assert manager.load(model).step == 1


def test_two_damaged_ones_are_refused(run, model):
    """In one line, which names both."""
    save(CheckpointManager(run), model, 1, 2)
    for name in ("last", "previous"):
        spoil(run.checkpoints / f"{name}.safetensors")
    with pytest.raises(RunError, match=r"one readable checkpoint.*last\.safetensors.*previous\.safetensors") as error:
        CheckpointManager(run).load(model)
    assert "\n" not in str(error.value)


def test_checkpoint_of_another_model_is_no_damaged_one(run, model):
    """It is refused, and the one before it is not taken."""
    save(CheckpointManager(run), model, 1, 2)
    with pytest.raises(RunError, match="of another model"):
        CheckpointManager(run).load(network(units=5))


@pytest.mark.parametrize("broken", range(1, 5))
def test_one_is_whole_wherever_the_writing_ends(run, model, monkeypatch, broken):
    """The process ends before the n-th change of a name: the new one is there, or the one before."""
    save(CheckpointManager(run), model, 1, 2)
    left = [broken]

    def counted(change):
        def changed(*names):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return change(*names)

        return changed

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        for name in ("link", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        save(CheckpointManager(run), model, 3)
    manager = CheckpointManager(run)
    assert manager.load(network()).step == (3 if broken == 4 else 2)
    assert manager.damage == ""
    assert all(step in (1, 2, 3) for step in steps(manager))


def test_disk_without_second_names(run, model, monkeypatch):
    """Where a file can have one name only, the last one is renamed."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    manager = CheckpointManager(run)
    save(manager, model, 1, 2, 3)
    assert steps(manager) == [3, 2]


def test_full_disk_leaves_both(run, model):
    """One line, and nothing has changed."""
    manager = CheckpointManager(run)
    save(manager, model, 1, 2)
    before = {p.name: p.read_bytes() for p in run.checkpoints.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(RunError, match=r"Could not write .*last\.safetensors: File too large") as error:
            save(manager, model, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert {p.name: p.read_bytes() for p in run.checkpoints.iterdir()} == before


def test_due_by_steps_and_by_seconds(run):
    """Every so many steps of the whole training; or when so many seconds are over."""

    def due(**changed):
        manager = CheckpointManager(Run(run.path, RECIPE.override(**changed)))
        return [step for step in range(1, 11) if manager.is_scheduled(step)]

    assert due() == []
    assert due(checkpoint_steps=4) == [4, 8]
    assert due(checkpoint_seconds=0) == list(range(1, 11))
    assert due(checkpoint_seconds=0, checkpoint_steps=4) == list(range(1, 11))


def test_one_that_does_not_write(run, model):
    """It reads all there is to write, and leaves the disk alone."""
    manager = CheckpointManager(run, writes=False)
    save(manager, model, 1)
    manager.save_best(model, Progress(step=1))
    assert not run.checkpoints.exists()
