"""What a dataset holds: examples by split and class, and what was left out; shown before training, stored in runs."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.data.columns.describing import column_lines, described_columns
from training.data.dataset import Dataset
from zoo.common.lazy import np
from zoo.specs.tasks import task_of

# Classes that are listed; of more, the smallest and the largest are.
LISTED = 12


def summarize(dataset: Dataset) -> dict[str, Any]:
    """Return the summary of a dataset, JSON-safe.

    Returns:
        "examples" by split; "classes", the examples by split and class where they are known without reading them;
        "columns", a table of the columns of a table; and "notes" on what was guessed or left out. Names of files that
        are left out are under "left_out", with the reasons, and "duplicates".
    """
    found: dict[str, Any] = {"examples": {name: split.count for name, split in dataset.splits.items()}}
    if task_of(dataset.task).indexed and dataset.labels:
        known = {name: split for name, split in dataset.splits.items() if split.read_labels}
        found["classes"] = {name: _counts(split, dataset.labels) for name, split in known.items()}
    if dataset.table:
        found["columns"] = described_columns(dataset.table.columns)
    return {**found, "notes": [*_class_notes(found.get("classes", {})), *dataset.notes], **dataset.details}


def _class_notes(classes: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yield a line on classes of a single example, and one for each split that lacks classes."""
    totals = collections.Counter[str]()
    for counts in classes.values():
        totals.update(counts)
    if few := [name for name, count in totals.items() if count < 2]:
        yield f"A single example of {_listed(few)}: too few to learn from, and to measure"
    for split, counts in classes.items():
        if missing := [name for name, count in counts.items() if not count and totals[name] > 1]:
            yield f"No {split} examples of {_listed(missing)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more classes" if len(names) > 5 else "")


def _counts(split: Any, labels: tuple[str, ...]) -> dict[str, int]:
    numbers = np.fromiter(split.labels().as_numpy_iterator(), "int64")
    return dict(zip(labels, np.bincount(numbers, minlength=len(labels)).tolist(), strict=True))


def summary_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show a summary."""
    yield "data: " + ", ".join(f"{count:,} {name}" for name, count in summary["examples"].items()) + " examples"
    counts = summary.get("classes", {}).get("train", {})
    if counts:
        ordered = sorted(counts, key=counts.__getitem__)
        shown = counts if len(counts) <= LISTED else (ordered[0], ordered[-1])
        listed = ", ".join(f"{name} {counts[name]:,}" for name in shown)
        yield f"{len(counts):,} classes, training examples of {'each' if shown is counts else 'some'}: {listed}"
    yield from column_lines(summary["columns"]) if "columns" in summary else ()
    yield from summary["notes"]
