"""Damaged images, tables and texts through the start of training: each is read, or left out and named; no crash."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from training import AugmentConfig, DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from training.data.summary import summarize

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks"))
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


@pytest.mark.parametrize("count", [24, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_tables_and_texts_train_or_are_refused(count, capsys):
    """No traceback, no hang, and each row is an example, or stated as left out."""
    from mutated import mutated as outcomes

    found = outcomes(count, 1)
    assert not found["fails"], capsys.readouterr().out
    assert sum(found.values()) == count
    # The control: some of both.
    assert min(found["trains"], found["refused"]) > count / 10, found


def test_a_row_that_nothing_states_is_found(tmp_path, monkeypatch):
    """The negative control: a line that does not state the rows is an outcome of its own."""
    import mutated as module

    path = tmp_path / "file.csv"
    path.write_bytes(module.table(np.random.default_rng(0)).replace(b"yes", b"NA", 5))
    assert module.outcome("table", path) == "trains"
    monkeypatch.setattr(module, "LEFT_OUT", module.re.compile("(nothing)"))
    assert "80 rows" in module.outcome("table", path)
