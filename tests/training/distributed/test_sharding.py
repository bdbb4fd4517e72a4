"""Shards of batches: together they are the whole batch in every case, and nothing else is read for them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

import training.data.pipeline.pipeline as pipeline_module
import zoo
from training import AugmentConfig, DataConfig, ModelConfig, Recipe
from training.common.sharding import Shard, shard_rows
from training.data.pipeline.opening import open_pipeline
from training.data.readers.files import file_split
from zoo.common.errors import BadOption

EVERYTHING = AugmentConfig(
    flip=True, rotate=10, pad_crop=1, brightness=0.2, noise=0.02, rand_augment=1, trivial_augment=True, erase=0.5,
    mixup=0.2, cutmix=1.0,
)  # fmt: skip
SOME = AugmentConfig(flip=True, noise=0.02, mixup=0.2)
CROPPED = dataclasses.replace(EVERYTHING, crop_scale=(0.3, 1.0), repeats=2)


def served(name="digits", augment=EVERYTHING, **data):
    """Return a pipeline of small images."""
    recipe = Recipe("test", model=ModelConfig("resnet_tiny"), data=DataConfig(name, augment=augment, **data))
    return open_pipeline(recipe, zoo.spec("resnet_tiny"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 60 JPEGs of different sizes in two classes."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir()
        for i in range(30):
            pixels = random.normal(level, 40, (40 + i, 60 - i, 3)).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")
    return str(folder)


def batches(dataset):
    """Return (x, y) of all batches."""
    return [(np.asarray(x), np.asarray(y)) for x, y in dataset]


def shards(workers, replicas):
    """Return the shards of all workers."""
    return [Shard(workers, worker, replicas) for worker in range(workers)]


@pytest.mark.parametrize(("size", "workers", "replicas"), [(64, 1, 2), (64, 4, 2), (12, 2, 1), (6, 2, 1), (6, 3, 2)])
def test_rows_are_split(size, workers, replicas):
    """Each row of a batch belongs to one replica, and shards of even sizes hold both rows of a mirrored pair."""
    table = shards(workers, replicas)[0].table(size)
    assert sorted(table.ravel().tolist()) == list(range(size))
    for shard, rows in zip(shards(workers, replicas), np.split(table, workers), strict=True):
        assert set(rows.ravel()) == set(shard.rows(size))
    for rows in table if size // workers // replicas % 2 == 0 else ():
        assert np.array_equal(rows[::-1], size - 1 - rows)


def test_whole_batch_is_in_its_order():
    """One shard is the whole batch, in order."""
    assert np.array_equal(shard_rows(10, 1, 0), np.arange(10))


def test_odd_shards_cannot_be_mixed():
    """Shards that would separate pairs are refused, except where the whole batch is mixed in one place."""
    with pytest.raises(BadOption, match=r"a batch of 6 in 2 shards"):
        Shard(2, 0, 1).check_mixing(6, augments_on_device=False)
    with pytest.raises(BadOption, match=r"a batch of 6 in 2 shards"):
        Shard(1, 0, 2).check_mixing(6, augments_on_device=True)
    Shard(1, 0, 2).check_mixing(6, augments_on_device=False)
    Shard(3, 0, 1).check_mixing(6, augments_on_device=False)


CASES = {
    "memory": ("digits", SOME, 1 << 30),
    "files": ("folder", SOME, 0),
    "memory, everything": ("digits", EVERYTHING, 1 << 30),
    "stream, everything": ("digits", EVERYTHING, 0),
    "files, everything": ("folder", EVERYTHING, 0),
    "crops, everything": ("folder", CROPPED, 0),
}
# Tracing takes seconds: quick tests cover replicas of workers, slow tests cover the rest.
SHARDED = [
    pytest.param(case, *parts, marks=() if case == "files" and parts == (2, 2) else pytest.mark.slow)
    for case in CASES
    for parts in [(1, 2), (2, 1), (2, 2)]
]


@pytest.mark.parametrize(("case", "workers", "replicas"), SHARDED)
def test_shards_of_training_batches_are_the_whole(case, workers, replicas, photos, monkeypatch):
    """Order and augmentation of a row are the same in any shard, also from the middle of an epoch."""
    name, augment, memory = CASES[case]
    monkeypatch.setattr(pipeline_module, "MEMORY", memory)
    options = {"path": photos, "image_size": (8, 8)} if name == "folder" else {}
    pipe = served(name, augment, batch_size=16, **options)
    wanted = batches(pipe.train(1, 1).take(2))
    for shard in shards(workers, replicas):
        rows = shard.rows(16)[shard.places(16)]
        found = batches(pipe.train(1, 1, shard).take(2 * replicas))
        for i, (x, y) in enumerate(found):
            mine = rows[i % replicas]
            assert np.abs(x - wanted[i // replicas][0][mine]).max() < 1e-4
            assert np.array_equal(y, wanted[i // replicas][1][mine])


EVALUATED = [pytest.param(1, 4, marks=pytest.mark.slow), (2, 2), pytest.param(4, 1, marks=pytest.mark.slow)]


@pytest.mark.parametrize("memory", [1 << 30, 0])
@pytest.mark.parametrize(("workers", "replicas"), EVALUATED)
def test_shards_of_evaluated_batches_are_the_whole(workers, replicas, memory, monkeypatch):
    """Every example of a split is in one shard; all shards have as many batches, and the last ones may be empty."""
    monkeypatch.setattr(pipeline_module, "MEMORY", memory)
    pipe = served(augment=AugmentConfig(), batch_size=64)
    wanted = batches(pipe.evaluate("validation"))
    found = [batches(pipe.evaluate("validation", shard)) for shard in shards(workers, replicas)]
    assert {len(parts) for parts in found} == {replicas * len(wanted)} == {replicas * 3}
    for i, (x, y) in enumerate(wanted):
        parts = [part for worker in found for part in worker[i * replicas : (i + 1) * replicas]]
        assert np.array_equal(np.concatenate([x for x, _ in parts]), x)
        assert np.array_equal(np.concatenate([y for _, y in parts]), y)
    # The last batch has 16 of the 144 examples, and a replica takes 16.
    assert min(len(x) for parts in found for x, _ in parts) == 0


def test_only_files_of_the_shard_are_read(tmp_path):
    """The files of other shards may be missing."""
    paths = [str(tmp_path / f"{i}.bin") for i in range(40)]
    for i in range(40):
        (tmp_path / f"{i}.bin").write_bytes(bytes([i]))
    split, rows = file_split(paths, range(40)), Shard(2, 1, 1).rows(8)

    def read():
        pick = lambda examples: pipeline_module.shard_examples(examples, 8, rows)  # noqa: E731
        return [(x, int(y)) for x, y in split.shuffled(1, 8, pick).as_numpy_iterator()]

    found = read()
    order = [int(y) for _, y in split.shuffled(1, 8).as_numpy_iterator()]
    assert [y for _, y in found] == [order[i] for i in range(32) if i % 8 in rows]
    for i in set(range(40)) - {y for _, y in found}:
        (tmp_path / f"{i}.bin").unlink()
    assert read() == found
