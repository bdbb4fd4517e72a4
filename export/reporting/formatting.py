"""Figures as people read them."""

from __future__ import annotations

from typing import Any


def artifact_name(artifact: dict) -> str:
    """Name an artifact as it is called, or as its folder is named: format, or format-compression."""
    return (
        artifact.get("name")
        or "-".join(filter(None, (artifact.get("format"), artifact.get("compression"))))
        or "unnamed"
    )


def percent(value: float | None, digits: int = 1) -> str:
    """Format a share as a percentage; only what is exactly 1 reads 100%."""
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
    """Format a number of seconds for people."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def points(value: float | None) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def parity(passed: bool | None) -> str:
    """Say in a word, with a sign for quick eyes, how the comparison with the source ended."""
    return {True: "✓ passed", False: "✗ failed", None: "not checked"}[passed]


def rate(found: dict[str, Any] | None) -> str:
    """Say how many examples a second were answered, and how they came."""
    if not found:
        return "–"
    count = f"{found['per_second']:,.0f}" if found["per_second"] >= 100 else f"{found['per_second']:.3g}"
    callers = f"{found['callers']} callers" if found["callers"] > 1 else ""
    batches = f"{found['batch']} at once" if found["batch"] > 1 else ""
    return f"{count}/s, {' of '.join(filter(None, (callers, batches))) or 'one by one'}"


def listed(found: Any, most: int = 2) -> str:
    """Name the first few of several things by the ends of their names, and count the rest."""
    if found is None or isinstance(found, (int, float, str)):
        return "–" if found is None else str(found)
    names = ["/".join(str(name).split("/")[-2:]) for name in found]
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "none"
