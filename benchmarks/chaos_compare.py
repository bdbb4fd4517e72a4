"""Compare two finished runs bit for bit, or except for the rounding of a mean."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


class Broken(Exception):
    """A check failed."""


def check(holds: bool, what: str) -> None:
    """Raise Broken unless a condition holds."""
    if not holds:
        raise Broken(what)


def contents(run: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays and the progress of a checkpoint."""
    from safetensors import safe_open

    with safe_open(run / f"checkpoints/{name}.safetensors", "numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["progress"])  # noqa: SIM118


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the metrics of each epoch, without times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "images_per_second", "data_wait")
    return [{key: value for key, value in row.items() if key not in clock} for row in found]


def same(run: Path, reference: Path, *, rounding: float = 0.0) -> None:
    """Raise Broken unless two finished runs are equal, bit for bit and in every metric.

    Args:
        run: one of them.
        reference: the other.
        rounding: largest relative difference of the running means of training and of their sums.
    """
    for name in ("last", "best"):
        (ours, mine), (theirs, wanted) = (contents(each, name) for each in (run, reference))
        exact = [key for key in theirs if not (rounding and key.startswith("metrics/"))]
        differing = [key for key in exact if ours[key].tobytes() != theirs[key].tobytes()]
        check(not differing and set(ours) == set(theirs), f"{name}.safetensors differs in {differing[:3]}")
        mine, wanted = ({k: v for k, v in each.items() if k != "seconds"} for each in (mine, wanted))
        check(mine == wanted, f"{name}.safetensors is at {mine}, expected {wanted}")
    pairs = list(zip(rows(run), rows(reference), strict=False))
    alike = len(rows(run)) == len(rows(reference)) and all(_alike(*pair, rounding) for pair in pairs)
    check(alike, "the metrics of epochs differ")
    tests = [json.loads((each / "done.json").read_text())["test"] for each in (run, reference)]
    check(tests[0] == tests[1], "the metrics of the test split differ")


def _alike(row: dict[str, Any], wanted: dict[str, Any], rounding: float) -> bool:
    """Return whether the metrics of an epoch are equal, except for the rounding of the mean loss."""
    return set(row) == set(wanted) and all(
        math.isclose(row[key], value, rel_tol=rounding) if key == "loss" else row[key] == value
        for key, value in wanted.items()
    )
