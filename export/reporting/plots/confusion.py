"""The confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from export.reporting.plots.canvas import FIRST, INK, PAPER, RULE, WIDTH, canvas, freeze_layout, shorten, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NUMBERED_CLASSES = 30
MAX_CLASSES = 200
SHADES = 16


def draw_confusion(matrix: list[list[int]], labels: Sequence[str], *, alt: str) -> str:
    """Draw a confusion matrix, each cell shaded by its fraction of the row.

    Args:
        matrix: Counts of examples, shape (classes, classes); rows are the truth, columns the prediction.
        labels: One for each class.
        alt: Text for readers who do not see the plot.

    Returns:
        An `<svg>` element, with counts up to `MAX_NUMBERED_CLASSES` classes and fewer labels above.
    """
    size = WIDTH if len(matrix) <= 12 else 7.2
    with canvas((size, size)) as figure:
        axes = figure.subplots()
        axes.set(aspect="equal", xlim=(0, len(matrix)), ylim=(len(matrix), 0))
        axes.set(xlabel="Prediction", ylabel="Truth")
        axes.grid(False)
        axes.spines[:].set(visible=True, color=RULE)
        axes.tick_params(length=0)
        _class_ticks(axes, [shorten(label) for label in labels])
        _shade(axes, matrix)
        if len(matrix) <= MAX_NUMBERED_CLASSES:
            freeze_layout(figure)
            _number(axes, matrix)
        return to_svg(figure, "confusion", alt)


def _class_ticks(axes: Axes, labels: list[str]) -> None:
    """Label the classes on both axes; skips labels that would overlap."""
    step = 1 if len(labels) <= MAX_NUMBERED_CLASSES else math.ceil(len(labels) / 25)
    positions = [index + 0.5 for index in range(0, len(labels), step)]
    upright = all(len(label) <= (4 if len(labels) <= 12 else 2) for label in labels)
    axes.set_xticks(positions, labels[::step], rotation=0 if upright else 90)
    axes.set_yticks(positions, labels[::step])


def _opacity(count: int, row: list[int]) -> float:
    """Return the opacity of a cell; the square root makes rare confusions visible."""
    return 0.08 + 0.92 * math.sqrt(count / sum(row))


def _shade(axes: Axes, matrix: list[list[int]]) -> None:
    """Fill the nonzero cells, with one path per shade instead of up to 40,000 elements."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    shades: dict[int, list] = {}
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            if count:
                corners = [(j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1), (j, i)]
                shades.setdefault(round(_opacity(count, row) * SHADES), []).append(corners)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    for shade, cells in sorted(shades.items()):
        path = Path([corner for corners in cells for corner in corners], codes * len(cells))
        axes.add_patch(PathPatch(path, facecolor=FIRST, alpha=shade / SHADES, linewidth=0))


def _number(axes: Axes, matrix: list[list[int]]) -> None:
    """Print the counts of nonzero cells, as large as the longest allows."""
    digits = max(len(str(count)) for row in matrix for count in row)
    size = min(10.5, axes.bbox.width / len(matrix) * 0.9 / (0.64 * max(digits, 2)))
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            if count:
                color = PAPER if _opacity(count, row) > 0.55 else INK
                axes.text(j + 0.5, i + 0.52, str(count), size=size, color=color, ha="center", va="center")
