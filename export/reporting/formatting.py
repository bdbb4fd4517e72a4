"""Formatting of values for people."""

from __future__ import annotations

from typing import Any


def artifact_name(artifact: dict) -> str:
    """Return the name of an artifact, or of its folder: format, or format-compression."""
    return (
        artifact.get("name")
        or "-".join(filter(None, (artifact.get("format"), artifact.get("compression"))))
        or "unnamed"
    )


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction as a percentage; only exactly 1 becomes 100%."""
    if value is None:
        return "–"
    text = f"{100 * value:.{digits}f}%"
    return f">{100 - 10**-digits:.{digits}f}%" if value < 1 and text.startswith("100") else text


def size(count: float | None) -> str:
    """Format a number of bytes with three digits and a decimal unit."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def milliseconds(value: float | None) -> str:
    """Format a time in milliseconds with three digits, a short one in microseconds."""
    if value is None:
        return "–"
    if 0 < value < 0.1:
        return f"{1000 * value:.3g} µs"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def duration(seconds: float | None) -> str:
    """Format a duration in seconds."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def points(value: float | None) -> str:
    """Format a difference of fractions in percentage points, with its sign."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def parity(passed: bool | None) -> str:
    """Format the result of the verification."""
    return {True: "✓ passed", False: "✗ failed", None: "not checked"}[passed]


def throughput(measured: dict[str, Any] | None) -> str:
    """Format a throughput: examples per second, batch size and number of callers."""
    if not measured:
        return "–"
    count = f"{measured['per_second']:,.0f}" if measured["per_second"] >= 100 else f"{measured['per_second']:.3g}"
    callers = f"{measured['callers']} callers" if measured["callers"] > 1 else ""
    batch = f"batch {measured['batch']}" if measured["batch"] > 1 else ""
    return f"{count}/s, {', '.join(filter(None, (callers, batch))) or 'batch 1'}"


def name_list(values: Any, most: int = 2) -> str:
    """Format a list of names: the ends of the first few, and the number of others."""
    if values is None or isinstance(values, (int, float, str)):
        return "–" if values is None else str(values)
    names = ["/".join(str(name).split("/")[-2:]) for name in values]
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "none"
