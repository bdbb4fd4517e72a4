"""Intervals, pairs, sizes and dominated artifacts of a report, and its table in the terminal."""

from __future__ import annotations

import io

import pytest
from report_content import artifact
from rich.console import Console

from export.reporting.comparison import wilson_interval
from export.reporting.formatting import percent, size
from export.reporting.plots.tradeoff import Point, is_dominated
from export.reporting.tables import artifact_table
from export.reporting.training_plots import confused_pairs


def test_wilson_interval():
    # 8 of 10: (0.8 + 0.19207 ± 1.96 * sqrt(0.016 + 0.0096036)) / 1.38415.
    assert wilson_interval(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(1.0, 5)[1] == 1.0
    assert wilson_interval(0.0, 5)[0] == 0.0


def test_confused_pairs_are_ordered():
    pairs = confused_pairs([[5, 1, 0], [2, 6, 2], [0, 3, 1]], ["a", "b", "c"], limit=3)
    assert [(pair["truth"], pair["prediction"], pair["count"]) for pair in pairs] == [
        ("c", "b", 3),
        ("b", "a", 2),
        ("b", "c", 2),
    ]
    assert pairs[0]["fraction"] == 0.75


@pytest.mark.parametrize(("value", "text"), [(1, "100.0%"), (0.99999, ">99.9%"), (0.5, "50.0%"), (None, "–")])
def test_only_one_is_100_percent(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (999_900, "1 MB"), (312_344, "312 kB")])
def test_sizes(count, text):
    assert size(count) == text


def test_dominated_artifacts():
    small, good, worse = (Point(*values) for values in (("a", 1, 0.90), ("b", 2, 0.95), ("c", 3, 0.95)))
    broken = Point("d", 1, 0.99, passed=False)
    points = [small, good, worse, broken, small]
    assert [is_dominated(point, points) for point in points[:3]] == [False, False, True]


def test_table_for_the_terminal(content):
    console = Console(file=io.StringIO(), width=120)
    rows = [*content["artifacts"], artifact("[bold]tflite", compression="pruned"), {"format": "bare"}]
    console.print(artifact_table(rows, title="[run]"))
    text = console.file.getvalue()
    for words in (
        "[run]",
        "tflite_int8",
        "312 kB",
        "0.21 ms",
        "97.5%",
        "✓ passed",
        "✗ failed",
        "not checked",
    ):
        assert words in text
    assert "[bold]tflite-pruned" in text
