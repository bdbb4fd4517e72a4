"""The checkpoint manager retains two checkpoints of a training run, and one of them is always intact."""

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


def small_model(units=3):
    """Return a small compiled model."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, name="out")], name="net")
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def run(tmp_path):
    """A new run directory."""
    return Run.create(RECIPE, tmp_path / "run")


@pytest.fixture(scope="module")
def model():
    """A model that stores the step of its checkpoint in its first bias."""
    return small_model()


def save(manager, model, *steps):
    """Save a checkpoint at each step."""
    for step in steps:
        model.layers[-1].bias.assign(np.full(3, step, "float32"))
        manager.save(model, Progress(step=step))


def steps(manager):
    """Return the steps of the last checkpoint and of the one before it."""
    return [_read(path)[1].step for path in (manager.last, manager.previous)]


def corrupt(path):
    """Flip a bit near the end of a file, in its data."""
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def test_the_two_newest_are_retained(run, model):
    """The best checkpoint is a separate file."""
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
    assert again.load(small_model()).step == 3
    assert again.damage == ""


def test_damaged_checkpoint_falls_back_to_the_previous_one(run, model):
    """A warning reports it; the previous one is loaded until the next save, and stays next to the new one."""
    save(CheckpointManager(run), model, 1, 2)
    corrupt(run.checkpoints / "last.safetensors")
    manager, other = CheckpointManager(run), small_model()
    with pytest.warns(UserWarning, match=r"last\.safetensors: the content does not match the checksum.*step 1"):
        assert manager.load(other).step == 1
    assert "previous.safetensors" in manager.damage
    assert other.layers[-1].bias.numpy().tolist() == [1, 1, 1]
    assert manager.load(other).step == 1
    save(manager, model, 2)
    assert steps(manager) == [2, 1]
    save(manager, model, 3)
    assert steps(manager) == [3, 2]


def test_missing_checkpoint_falls_back_too(run, model):
    """An interrupted rename of files leaves this state."""
    save(CheckpointManager(run), model, 1, 2)
    (run.checkpoints / "last.safetensors").unlink()
    manager = CheckpointManager(run)
    assert manager.exists
    with pytest.warns(UserWarning, match=r"last\.safetensors"):
        assert manager.load(model).step == 1


def test_two_damaged_checkpoints_are_refused(run, model):
    """One line names both."""
    save(CheckpointManager(run), model, 1, 2)
    for name in ("last", "previous"):
        corrupt(run.checkpoints / f"{name}.safetensors")
    with pytest.raises(RunError, match=r"one readable checkpoint.*last\.safetensors.*previous\.safetensors") as error:
        CheckpointManager(run).load(model)
    assert "\n" not in str(error.value)


def test_checkpoint_of_another_model_is_not_damaged(run, model):
    """It is refused, without a fallback to the previous one."""
    save(CheckpointManager(run), model, 1, 2)
    with pytest.raises(RunError, match="of another model"):
        CheckpointManager(run).load(small_model(units=5))


@pytest.mark.parametrize("broken", range(1, 5))
def test_one_checkpoint_is_intact_wherever_saving_ends(run, model, monkeypatch, broken):
    """The process ends before the n-th change of a name: the new checkpoint or the previous one is there."""
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
    assert manager.load(small_model()).step == (3 if broken == 4 else 2)
    assert manager.damage == ""
    assert all(step in (1, 2, 3) for step in steps(manager))


def test_disk_without_hard_links(run, model, monkeypatch):
    """Without hard links, the last checkpoint is renamed."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    manager = CheckpointManager(run)
    save(manager, model, 1, 2, 3)
    assert steps(manager) == [3, 2]


def test_full_disk_leaves_both(run, model):
    """The error has one line; both checkpoints are unchanged."""
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


def test_scheduled_by_steps_and_by_seconds(run):
    """A checkpoint is scheduled every so many steps of the whole training, or after so many seconds."""

    def scheduled(**changed):
        manager = CheckpointManager(Run(run.path, RECIPE.override(**changed)))
        return [step for step in range(1, 11) if manager.is_scheduled(step)]

    assert scheduled() == []
    assert scheduled(checkpoint_steps=4) == [4, 8]
    assert scheduled(checkpoint_seconds=0) == list(range(1, 11))
    assert scheduled(checkpoint_seconds=0, checkpoint_steps=4) == list(range(1, 11))


def test_follower_does_not_write(run, model):
    """It reads everything that a checkpoint needs, and leaves the disk alone."""
    manager = CheckpointManager(run, writes=False)
    save(manager, model, 1)
    manager.save_best(model, Progress(step=1))
    assert not run.checkpoints.exists()
