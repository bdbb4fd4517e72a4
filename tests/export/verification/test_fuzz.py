"""Damaged files of a run and its artifacts, drawn with a fixed seed: read or refused in one line; see `make fuzz`."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from zoo.common.errors import RunError


@pytest.fixture(scope="module")
def damage(root):
    """The module behind `make fuzz`."""
    spec = importlib.util.spec_from_file_location("damage", root / "benchmarks" / "damage.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["damage"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["damage"]


@pytest.fixture(scope="module")
def exported(artifacts):
    """A run with an artifact in every format; nothing changes it."""
    return artifacts["onnx"].folder.parents[1]


def test_damaged_files_are_read_or_refused(damage, exported):
    """A few of each kind of file and of damage, without running what is read."""
    counts = damage.main(exported, 250, 1, verify=False)
    assert set(counts) == {"read", "refused"}
    assert counts["refused"] > 100


@pytest.mark.slow
def test_damaged_files_are_refused_by_verification(damage, exported):
    """More of them, with digests that fit, loaded in their runtimes and verified."""
    assert set(damage.main(exported, 1500, 2)) == {"read", "refused"}


def test_faults_are_found(damage, exported, tmp_path):
    """The control: a traceback, several lines, a slow reader and a file elsewhere are counted."""

    def fail(error):
        raise error

    attempts = {
        "traceback: KeyError": lambda _: fail(KeyError("x")),
        "not one line": lambda _: fail(RunError("a\nb")),
        "refused": lambda _: fail(RunError("a")),
        "read": lambda path: path,
    }
    for outcome, read in attempts.items():
        assert damage.attempt(damage.Target("done.json", read), exported).startswith(outcome)


def test_mutators_change_content(damage):
    """Nearly every time, also of an empty file."""
    import random

    draw, content = random.Random(0), b'{"version": 1, "values": [1, 2, {"x": "y"}]}\n' * 3
    for mutate in set(damage.MUTATORS):
        changed = [mutate(content, draw) != content for _ in range(20)]
        assert sum(changed) > 15, mutate.__name__
        assert isinstance(mutate(b"", draw), bytes)
