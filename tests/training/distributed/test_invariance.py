"""What is learnt does not depend on how many devices compute it; see `benchmarks/invariance.py` for the measure."""

from __future__ import annotations

import json

import pytest


def rows(python, *arguments):
    """Return the rows that the benchmark prints, and its exit code."""
    process = python("benchmarks/invariance.py", "--json", *arguments)
    out, err = process.communicate(timeout=850)
    assert out, err
    return [json.loads(line) for line in out.splitlines()], process.returncode


def check(found, code, cases, hows):
    """Check that everything was compared, and stayed below what is allowed but for what leaves something out."""
    compared = [row for row in found if "without" not in row]
    assert {(row["case"], row["how"]) for row in compared} == {(case, how) for case in cases for how in hows}
    assert max(row[key] for row in compared for key in ("losses", "weights", "metrics")) <= 1e-4
    assert all(row["ok"] for row in found)
    assert code == 0


def test_replicas_learn_the_same(python):
    """Batch norm, label smoothing, clipping and accumulation, of one device and of 2 replicas.

    Without batch normalization over all replicas it shows.
    """
    found, code = rows(python, "--cases", "short", "--hows", "2 replicas")
    check(found, code, ["accumulation"], ["2 replicas"])
    assert [(row["without"], row["weights"] > 1e-4) for row in found if "without" in row] == [("norm", True)]


@pytest.mark.slow
def test_more_replicas_and_workers_learn_the_same(python):
    """The same of 4 replicas, and of 2 and 4 processes."""
    hows = ["4 replicas", "2 workers", "4 workers"]
    found, code = rows(python, "--cases", "short", "--hows", ",".join(hows))
    check(found, code, ["accumulation"], hows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cases",
    [
        ["perceptron", "batch norm", "label smoothing", "clipping"],
        ["running mean", "adamw", "regularizers", "mixed images"],
        ["mixed in the step", "auxiliary heads", "teacher", "tokens"],
    ],
    ids=" ".join,
)
def test_all_learn_the_same(python, cases):
    """Everything that a loss, an optimizer and a batch can have."""
    hows = ["2 replicas", "4 replicas", "2 workers"]
    found, code = rows(python, "--cases", ",".join(cases), "--hows", ",".join(hows))
    check(found, code, cases, hows)
