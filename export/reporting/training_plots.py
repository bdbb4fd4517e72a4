"""Training curves and the confusion matrix in a report."""

from __future__ import annotations

import heapq

from export.reporting.formatting import percent
from export.reporting.plots.canvas import percent_tick
from export.reporting.plots.confusion import MAX_CLASSES, draw_confusion
from export.reporting.plots.curves import draw_curves
from zoo.specs.tasks import task_of

MAX_PAIRS = 10
# Name, curves (label and key), height in inches, format of a value, format of a tick, and which value is best.
CURVES = (
    ("Loss", {"training": "loss", "validation": "val_loss"}, 2.7, "{:.3g}".format, "{:g}".format, min),
    (
        "Accuracy",
        {"training": "accuracy", "validation": "val_accuracy"},
        2.7,
        percent,
        percent_tick,
        max,
    ),
    (
        "Mean average precision",
        {"training": "mean_average_precision", "validation": "val_mean_average_precision"},
        2.7,
        percent,
        percent_tick,
        max,
    ),
    ("RMSE", {"training": "rmse", "validation": "val_rmse"}, 2.7, "{:.4g}".format, "{:g}".format, min),
    ("Learning rate", {"": "learning_rate"}, 1.5, None, "{:g}".format, None),
    ("Examples per second", {"": "images_per_second"}, 1.5, None, "{:,.0f}".format, None),
)


def training_curves(rows: list[dict]) -> list[dict]:
    """Draw the curves that have points, each with a note on its best epoch."""
    drawn = []
    for name, keys, height, show, tick, best in CURVES:
        series = {label: _line(rows, key) for label, key in keys.items()}
        series = {label: line for label, line in series.items() if line}
        if series:
            label, line = list(series.items())[-1]
            note = ""
            if best:
                epoch, value = best(line, key=lambda point: point[1])
                note = f"Best in {label}: {show(value)}, epoch {epoch}."
            alt = f"{name} over {len(rows)} epochs. {note}".strip()
            svg = draw_curves(name.split()[0].lower(), series, alt=alt, height=height, tick=tick)
            drawn.append({"name": name, "note": note, "svg": svg})
    return drawn


def _line(rows: list[dict], key: str) -> list[tuple[int, float]]:
    """Return the points of a curve, without the epochs that did not measure it."""
    points = ((row.get("epoch") or number, row.get(key)) for number, row in enumerate(rows, 1))
    return [(epoch, value) for epoch, value in points if value is not None]


def confusion_section(content: dict) -> dict | None:
    """Draw the confusion matrix unless there are too many classes, and list the most confused pairs."""
    matrix = content.get("confusion")
    if not matrix:
        return None
    labels = content.get("labels") or []
    if len(labels) != len(matrix):
        labels = [str(index) for index in range(len(matrix))]
    count, correct = sum(map(sum, matrix)), sum(row[index] for index, row in enumerate(matrix))
    unit = task_of((content.get("summary") or {}).get("task", "")).unit
    alt = f"Confusion matrix of {len(matrix)} classes: {correct} of {count} {unit} on the diagonal."
    svg = draw_confusion(matrix, labels, alt=alt) if len(matrix) <= MAX_CLASSES else None
    counts = {"classes": len(matrix), "count": count, "wrong": count - correct, "unit": unit}
    return {**counts, "svg": svg, "pairs": confused_pairs(matrix, labels)}


def confused_pairs(matrix: list[list[int]], labels: list[str], limit: int = MAX_PAIRS) -> list[dict]:
    """Return the most confused pairs of classes.

    Args:
        matrix: Counts of examples, shape (classes, classes); rows are the truth, columns the prediction.
        labels: Name of each class.
        limit: Maximum number of pairs.

    Returns:
        Dicts with truth, prediction, count and fraction (of the examples of that truth), most frequent first.
    """
    cells = ((count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if count and i != j)
    return [
        {"truth": labels[i], "prediction": labels[j], "count": count, "fraction": count / sum(matrix[i])}
        for count, i, j in heapq.nsmallest(limit, cells, key=lambda cell: (-cell[0], *cell[1:]))
    ]
