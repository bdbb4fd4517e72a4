"""Training does not depend on the number of devices; see `benchmarks/invariance.py` for the measure."""

from __future__ import annotations

import json

import pytest

# fit/test_loop.py has a quick test of two replicas.
pytestmark = pytest.mark.slow


def rows(python, *arguments):
    """Return the rows that the benchmark prints, and its exit code."""
    process = python("benchmarks/invariance.py", "--json", *arguments)
    out, err = process.communicate(timeout=850)
    assert out, err
    return [json.loads(line) for line in out.splitlines()], process.returncode


def check(found, code, cases, hows):
    """Check that all cases are compared and within the tolerance, except those that leave a part out."""
    compared = [row for row in found if "without" not in row]
    assert {(row["case"], row["how"]) for row in compared} == {(case, how) for case in cases for how in hows}
    assert max(row[key] for row in compared for key in ("losses", "weights", "metrics")) <= 1e-4
    assert all(row["ok"] for row in found)
    assert code == 0


def test_replicas_train_the_same(python):
    """Compare one device with 2 replicas: batch norm, label smoothing, clipping and accumulation.

    The control: without batch normalization over all replicas, the weights differ.
    """
    found, code = rows(python, "--cases", "short", "--hows", "2 replicas")
    check(found, code, ["accumulation"], ["2 replicas"])
    assert [(row["without"], row["weights"] > 1e-4) for row in found if "without" in row] == [("norm", True)]


def test_more_replicas_and_workers_train_the_same(python):
    """The same with 4 replicas, and with 2 and 4 processes."""
    hows = ["4 replicas", "2 workers", "4 workers"]
    found, code = rows(python, "--cases", "short", "--hows", ",".join(hows))
    check(found, code, ["accumulation"], hows)


@pytest.mark.parametrize(
    "cases",
    [
        ["perceptron", "batch norm", "label smoothing", "clipping"],
        ["running mean", "adamw", "regularizers", "mixed images"],
        ["mixed in the step", "auxiliary heads", "teacher", "tokens"],
    ],
    ids=" ".join,
)
def test_all_train_the_same(python, cases):
    """Every option of a loss, an optimizer and a batch."""
    hows = ["2 replicas", "4 replicas", "2 workers"]
    found, code = rows(python, "--cases", ",".join(cases), "--hows", ",".join(hows))
    check(found, code, cases, hows)
