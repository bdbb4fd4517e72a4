"""What a report draws of training and of mistakes."""

from __future__ import annotations

import heapq

from export.reporting import plots
from export.reporting.formatting import percent

CONFUSED_PAIRS = 10
# Name, lines (label and key), height in inches, text of a value, text of a tick, and which value is best.
CURVES = (
    ("Loss", {"training": "loss", "validation": "val_loss"}, 2.7, "{:.3g}".format, "{:g}".format, min),
    (
        "Accuracy",
        {"training": "accuracy", "validation": "val_accuracy"},
        2.7,
        percent,
        plots.percent_tick,
        max,
    ),
    (
        "Mean average precision",
        {"training": "mean_average_precision", "validation": "val_mean_average_precision"},
        2.7,
        percent,
        plots.percent_tick,
        max,
    ),
    ("RMSE", {"training": "rmse", "validation": "val_rmse"}, 2.7, "{:.4g}".format, "{:g}".format, min),
    ("Learning rate", {"": "learning_rate"}, 1.5, None, "{:g}".format, None),
    ("Examples per second", {"": "images_per_second"}, 1.5, None, "{:,.0f}".format, None),
)


def curves(rows: list[dict]) -> list[dict]:
    """Draw the curves that have a point, each with a caption that names its best epoch."""
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
            svg = plots.curves(name.split()[0].lower(), series, alt=alt, height=height, tick=tick)
            drawn.append({"name": name, "note": note, "svg": svg})
    return drawn


def _line(rows: list[dict], key: str) -> list[tuple[int, float]]:
    """Collect one curve's points, leaving out the epochs in which it was not measured."""
    found = ((row.get("epoch") or number, row.get(key)) for number, row in enumerate(rows, 1))
    return [(epoch, value) for epoch, value in found if value is not None]


def confusion(content: dict) -> dict | None:
    """Draw the confusion matrix if the classes are not too many, and list what is confused most."""
    matrix = content.get("confusion")
    if not matrix:
        return None
    labels = content.get("labels") or []
    if len(labels) != len(matrix):
        labels = [str(index) for index in range(len(matrix))]
    count, right = sum(map(sum, matrix)), sum(row[index] for index, row in enumerate(matrix))
    unit = "tokens" if (content.get("summary") or {}).get("task") == "tag" else "examples"
    alt = f"Confusion matrix of {len(matrix)} classes: {right} of {count} {unit} on the diagonal."
    svg = plots.confusion(matrix, labels, alt=alt) if len(matrix) <= plots.DRAWN_CLASSES else None
    counts = {"classes": len(matrix), "count": count, "wrong": count - right, "unit": unit}
    return {**counts, "svg": svg, "pairs": confused_pairs(matrix, labels)}


def confused_pairs(matrix: list[list[int]], labels: list[str], limit: int = CONFUSED_PAIRS) -> list[dict]:
    """List the most frequent confusions.

    Args:
        matrix: Counts of examples, shape (classes, classes); rows are the truth, columns the prediction.
        labels: One for each class.
        limit: How many to list.

    Returns:
        Dicts with truth, prediction, count and share (of the examples of that truth), most frequent first.
    """
    cells = ((count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if count and i != j)
    return [
        {"truth": labels[i], "prediction": labels[j], "count": count, "share": count / sum(matrix[i])}
        for count, i, j in heapq.nsmallest(limit, cells, key=lambda cell: (-cell[0], *cell[1:]))
    ]
