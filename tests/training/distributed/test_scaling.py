"""The formula of docs/scaling.md, compared with sums by hand."""

from __future__ import annotations

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def scaling(root):
    """Return the benchmark as a module."""
    spec = importlib.util.spec_from_file_location("scaling", root / "benchmarks/scaling.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.modules["scaling"] = module
    spec.loader.exec_module(module)
    sys.path[:] = before
    yield module
    del sys.modules["scaling"]


def test_ring_by_hand(scaling):
    """4 workers, 100 MB, 10 Gbit/s: each sends 6 pieces of 25 MB, 20 ms each, and waits 6 times 1 ms."""
    assert scaling.ring_seconds(100e6, 4, 10e9) == pytest.approx(0.120)
    assert scaling.ring_seconds(100e6, 4, 10e9, latency=1e-3) == pytest.approx(0.126)
    # Two workers send each half to the other and back; one worker sends nothing.
    assert scaling.ring_seconds(100e6, 2, 10e9) == pytest.approx(0.080)
    assert scaling.ring_seconds(100e6, 1, 10e9, latency=1.0) == 0
    # With any number of workers, none sends more than all bytes twice.
    assert scaling.ring_seconds(100e6, 10_000, 10e9) == pytest.approx(0.160, rel=1e-3)


def test_efficiency_by_hand(scaling):
    """A step of 0.3 s has 0.2 s in which communication is hidden."""
    assert scaling.efficiency(0.3, 0.1, overlap=False) == pytest.approx(0.75)
    assert scaling.efficiency(0.3, 0.1, overlap=True) == 1.0
    assert scaling.efficiency(0.3, 0.5, overlap=True) == pytest.approx(0.5)
    assert scaling.efficiency(0.3, 0.0, overlap=False) == 1.0


def test_tables(scaling):
    """Rows follow from the measurements; a ring that takes twice as long as expected is reported."""
    model = scaling.Measured("net", 32, 8, step=0.3, size=100_000_000, tensors=3)
    rows = scaling.expected_rows(model)
    assert len(rows) == 6
    assert rows[0] == "| 10 Gbit/s | 8 | 140.7 ms | 68.1% | 100.0% | 17.6% | 19.9% |"
    paper = scaling.ring_seconds(1e6, 2, 100e6 * scaling.PAYLOAD, 0.001)

    def measured(rate, seconds):
        return {"rate": rate, "found": {"latency": 0.002, "all_reduce": [seconds]}}

    found = {2: [measured(100.0, 2 * paper), measured(0.0, paper)]}
    limited, unlimited = scaling.checked_rows(found, [1e6])
    assert limited.endswith("| 1.00 | 2.00 |")
    assert scaling.worst([limited, unlimited]) == (2.0, 2.0)
