"""Selection of an artifact: limits, preferences, and the message if none fits."""

from __future__ import annotations

import pytest

from export.reporting.pick import Limits, _best, _no_fit_message, _rounded_up, _why, misses_of
from zoo.common.errors import BadOption


def row(name, *, drop=0.0, size=1_000_000, packed=None, ms=1.0, memory=5.0):
    latency = {"1": {"p50": 2 * ms, "rounds": [2 * ms] * 9}, "2": {"p50": ms, "rounds": [ms] * 9}}
    measured = {"latency": latency, "batch": 1, "memory": {"peak": 9e7, "over_import": 1e6 * memory}}
    known = {"name": name, "drop": drop, "bytes": size, "gzip_bytes": packed or size // 2, "batch": 1}
    return {**known, "measured": measured}


FLOAT = row("tflite", size=3_200_000, ms=4.0)
INT8 = row("tflite_int8", drop=0.0028, size=800_000, ms=1.0)
PRUNED = row("onnx-prune-0.8", drop=0.02, size=3_200_000, packed=300_000, ms=6.0, memory=20.0)
ROWS = [FLOAT, INT8, PRUNED]


def fails(row, **limits):
    return [miss.text for miss in misses_of(row, Limits(**limits))]


def test_each_limit_is_checked():
    assert fails(INT8, max_drop=0.5, max_mb=2, max_ms=5, max_memory=10) == []
    assert fails(PRUNED, max_drop=0.5, max_mb=2, max_ms=5, max_memory=10) == [
        "2 points lost > 0.5",
        "3.2 MB > 2",
        "6 ms > 5",
        "20 MB of memory > 10",
    ]
    # The limit itself is allowed, also with rounding errors.
    assert fails(row("a", drop=0.3 - 0.1), max_drop=20) == []


def test_size_after_gzip():
    assert fails(PRUNED, max_mb=2, gzip=True) == []


def test_latency_by_threads():
    assert fails(FLOAT, max_ms=5) == []
    assert fails(FLOAT, max_ms=5, threads=1) == ["8 ms > 5"]


def test_unknown_values_fail():
    bare = {**FLOAT, "measured": None, "drop": None}
    assert fails(bare, max_drop=1, max_ms=5, max_memory=9) == [
        "accuracy unknown",
        "latency unknown",
        "memory unknown",
    ]
    assert fails(bare, max_mb=4) == []


def test_preferences():
    assert _best(ROWS, Limits())["name"] == "tflite_int8"
    assert _best(ROWS, Limits(prefer="accuracy"))["name"] == "tflite"
    assert _best(ROWS, Limits(prefer="size"))["name"] == "tflite_int8"
    assert _best(ROWS, Limits(prefer="size", gzip=True))["name"] == "onnx-prune-0.8"
    assert _best(ROWS, Limits(prefer="speed", threads=1))["name"] == "tflite_int8"


def test_equal_latency_is_decided_by_size():
    """Without a significant difference of latency the smaller artifact is selected, with a reason."""
    larger, smaller = row("larger", size=900, ms=1.00), row("smaller", size=800, ms=1.02)
    assert _best([larger, smaller], Limits())["name"] == "smaller"
    assert "larger is larger and not significantly faster" in _why(smaller, [larger, smaller], Limits())
    assert _best([larger, row("slower", size=800, ms=1.2)], Limits())["name"] == "larger"


def test_the_reason_has_each_limit():
    reason = _why(INT8, [INT8, FLOAT], Limits(max_drop=0.5, max_mb=2))
    assert "0.28 points lost (at most 0.5), 0.8 MB (at most 2), 1 ms, 5 MB of memory" in reason
    assert reason.endswith("the fastest of 2 that fit")


def test_no_artifact_fits():
    """One line: the limits, the nearest artifact, and the limits to relax, with which it fits."""
    limits = Limits(max_drop=0.2, max_mb=0.79)
    misses = {one["name"]: misses_of(one, limits) for one in ROWS}
    message = _no_fit_message(ROWS, misses, limits)
    assert "\n" not in message
    assert "--max-drop 0.2 --max-mb 0.79" in message
    assert "Nearest: tflite_int8 (0.28 points lost > 0.2, 0.8 MB > 0.79)" in message
    assert message.endswith("Relax: --max-drop 0.28 --max-mb 0.8.")
    assert misses_of(INT8, Limits(max_drop=0.28, max_mb=0.8)) == []


@pytest.mark.parametrize("value", [0.001234567, 0.28, 1.0, 999.4, 12345.6, 3.2000001])
def test_relaxed_limits_are_sufficient(value):
    assert value <= float(_rounded_up(value)) <= 1.01 * value


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_drop": -1}, "max_drop=-1"),
        ({"max_ms": float("nan")}, "max_ms=nan"),
        ({"threads": 0}, "threads=0"),
        ({"prefer": "beauty"}, "prefer='beauty'"),
        ({"runtime": "onxn"}, "Did you mean 'onnx'"),
    ],
)
def test_invalid_limits(wrong, message):
    with pytest.raises(BadOption, match="Received") as error:
        Limits(**wrong)
    assert message in str(error.value)


def test_runtime_is_a_format_or_a_prefix():
    for name in ("tflite", "tflite_int8", "onnx", "saved_model"):
        assert Limits(runtime=name).runtime == name
    with pytest.raises(BadOption):
        Limits(runtime="tfl")
