"""A short version of `make chaos`: one process, or one of two, is killed at random moments."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys

import pytest

import training

# test_resume.py has a quick test of a kill.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chaos(root):
    """Return the benchmark as a module."""
    spec = importlib.util.spec_from_file_location("chaos", root / "benchmarks/chaos.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["chaos"] = module
    sys.path.insert(0, str(root / "benchmarks"))
    spec.loader.exec_module(module)
    sys.path.remove(str(root / "benchmarks"))
    yield module
    module.end_all()
    for name in ("chaos", "chaos_compare"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def changes(chaos):
    """Return the changes of the recipe, with fewer epochs."""
    return {**chaos.CHANGES, "epochs": 4}


@pytest.fixture(scope="module")
def reference(chaos, changes, tmp_path_factory):
    """A run that was never interrupted."""
    path = tmp_path_factory.mktemp("chaos") / "whole"
    values = dict(training.parse_override(f"{key}={value}") for key, value in changes.items())
    training.train(values.pop("recipe"), values, run=path)
    return path


def test_run_killed_three_times_ends_like_an_uninterrupted_run(chaos, changes, reference, tmp_path):
    """Weights, moments, averages and metrics are equal to the bit; each kill is reported in one line."""
    lines = []
    chaos.kills(
        tmp_path, reference, lines.append, count=3, seed=2, changes=changes, finish=lambda run, _: training.resume(run)
    )
    assert len(lines) == 4
    assert all(f"kill {n} of 3: " in line and "came too late" not in line for n, line in enumerate(lines[:3], start=1))


def test_differences_are_found(chaos, reference, tmp_path):
    """A different weight, metric of an epoch or metric of the test split is reported."""
    chaos.same(reference, reference)
    shutil.copytree(reference, tmp_path / "run")
    rows = (tmp_path / "run/metrics.jsonl").read_text()
    (tmp_path / "run/metrics.jsonl").write_text(rows.replace('"loss": ', '"loss": 1', 1))
    with pytest.raises(chaos.Broken, match="metrics of epochs"):
        chaos.same(tmp_path / "run", reference)
    (tmp_path / "run/metrics.jsonl").write_text(rows)
    done = json.loads((tmp_path / "run/done.json").read_text())
    done["test"]["loss"] += 1e-6
    (tmp_path / "run/done.json").write_text(json.dumps(done))
    with pytest.raises(chaos.Broken, match="test split"):
        chaos.same(tmp_path / "run", reference)
    chaos.flip(tmp_path / "run/checkpoints/best.safetensors", 0.9)
    with pytest.raises(chaos.Broken, match=r"best\.safetensors differs"):
        chaos.same(tmp_path / "run", reference)


def test_one_of_two_workers_killed_once(chaos, tmp_path):
    """All workers restart, and end where two uninterrupted workers end, to the bit."""
    lines = []
    chaos.workers(tmp_path, lines.append, count=1, seed=1, changes={**chaos.TOGETHER, "epochs": 4})
    assert "kill 1 of 1 of one of two workers: " in lines[0]


def test_full_disk_and_damage(chaos, changes, reference, tmp_path):
    """Neither loses anything that was saved before."""
    lines = []
    chaos.full_disk(tmp_path, reference, lines.append, changes=changes)
    chaos.damage(tmp_path, reference, lines.append, seed=1, changes=changes)
    assert [line.partition(":")[0] for line in lines] == ["disk", "disk", "damage", "damage", "damage"]
