"""Damaged images through the start of training: each is decoded, or left out and named; nothing crashes or hangs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from training import AugmentConfig, DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from training.data.summary import summarize

sys.path.insert(0, str(Path(__file__).parents[2] / "common"))
EACH = 8


def mutated(content, random):
    """Return a file with one kind of damage."""
    values = np.frombuffer(content, "uint8").copy()
    kind, place = random.integers(6), int(random.integers(len(values)))
    if kind == 0:
        return values[:place].tobytes()
    if kind == 1:
        values[random.integers(0, len(values), random.integers(1, 9))] ^= np.uint8(1 << random.integers(8))
    elif kind == 2:
        values[random.integers(0, min(64, len(values)), 3)] = random.integers(0, 256, 3)
    elif kind == 3:
        values[place : place + int(random.integers(1, 200))] = random.integers(256)
    elif kind == 4:
        return np.concatenate([values[:place], random.integers(0, 256, 40).astype("uint8"), values[place:]]).tobytes()
    else:
        return random.integers(0, 256, len(values)).astype("uint8").tobytes()
    return values.tobytes()


def write(root, count, seed=0):
    """Write mutated files of every kind, and some good ones, into two classes; returns their names."""
    from image_kinds import bitmaps, jpegs, others

    random, names = np.random.default_rng(seed), []
    files = list({**bitmaps(), **others(), **jpegs()}.items())
    for kind in ("a", "b"):
        (root / kind).mkdir(parents=True)
        for i in range(EACH):
            (root / kind / f"good{i}.png").write_bytes(dict(files)["png"])
    for i in range(count):
        kind, content = files[i % len(files)]
        names.append(f"{'ab'[i % 2]}/{i:04d} {kind}.jpg")
        (root / names[-1]).write_bytes(mutated(content, random))
    return names


@pytest.mark.parametrize("count", [80, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_images_are_decoded_or_named(count, tmp_path):
    """All that is not left out goes through the batches of training and evaluation."""
    names = write(tmp_path, count)
    data = DataConfig("folder", str(tmp_path), 8, (8, 8), skip_bad=True, augment=AugmentConfig(crop_scale=(0.5, 1.0)))
    pipeline = open_pipeline(Recipe("t", ModelConfig("mlp_tiny"), data), zoo.spec("mlp_tiny"))
    summary = summarize(pipeline.dataset)
    left_out = summary["left_out"]
    assert sum(summary["examples"].values()) + len(left_out) == count + 2 * EACH
    assert set(left_out) <= set(names)
    assert all(reason and "\n" not in reason for reason in left_out.values())
    # The control: about half of such damage can be decoded.
    assert 0.2 < len(left_out) / count < 0.9
    seen = sum(len(x) for x, _ in pipeline.train(0))
    assert seen == pipeline.steps_per_epoch * pipeline.batch_size
    for split in ("train", "validation", "test"):
        assert sum(len(x) for x, _ in pipeline.evaluate(split)) == summary["examples"][split]
