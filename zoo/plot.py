"""Plot of an architecture: one box per stage, drawn with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.common.errors import BadOption, DataError
from zoo.description import layers_text, macs_unit, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, EDGE = "#1a1f24", "#5f6b76", "#24313d"
INPUT, PALE, DEEP = (223, 228, 232), (220, 233, 245), (20, 93, 160)

# Inches.
COLUMN, NARROWEST, MARGIN, TITLE = 1.72, 6.3, 0.3, 0.9
TALLEST, WIDEST, THINNEST = 1.3, 0.72, 0.05
SLANT = (0.34, 0.26)  # offset of the back of a box to the right and up, per inch of depth
LINE = 0.158
COLUMNS = 8
LONGEST = 30  # characters of a layer
HINT = "Height and depth: size of the map; width: channels, both by square root. Darker: more multiply-adds."

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "svg.fonttype": "none",
    "svg.hashsalt": "zoo",
    "text.parse_math": False,
    "pdf.fonttype": 42,
}
# Without dates, the same architecture yields the same bytes.
METADATA = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def draw(content: dict[str, Any], path: Path) -> None:
    """Plot a model to a file, written atomically.

    Args:
        content: the description of `zoo.description.describe`.
        path: the file; its suffix .png, .svg or .pdf selects the format.

    Raises:
        BadOption: the suffix is another one.
        DataError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in METADATA:
        raise BadOption(f"Expected a .png, .svg or .pdf file. Received: plot={str(path)!r}. Try {path.stem}.png")
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        # A path that is not writable fails before anything is drawn.
        temporary.touch()
        try:
            _draw(content, temporary, suffix)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"Could not write {path}: {reason}. Choose a writable folder.") from error


def _draw(content: dict[str, Any], path: Path, suffix: str) -> None:
    import matplotlib.style
    from matplotlib.figure import Figure

    first = {"name": "input", "output": content["input_shape"], "layers": {}, "params": 0, "gmacs": 0.0}
    boxes = [first, *content["stages"]]
    rows = [boxes[i : i + COLUMNS] for i in range(0, len(boxes), COLUMNS)]
    scale = _Scale(boxes, content["gmacs"])
    column = max(COLUMN, NARROWEST / len(rows[0]))
    width = 2 * MARGIN + column * len(rows[0])
    height = 2 * MARGIN + TITLE + sum(map(scale.row_height, rows)) + LINE
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(width, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.set_axis_off()
        _title(axes, content, height - MARGIN)
        top = height - MARGIN - TITLE
        for row in rows:
            scale.row(axes, row, top, column)
            top -= scale.row_height(row)
            if row is not rows[-1]:
                _arrow(axes, width - MARGIN - 0.3, width - MARGIN, top + scale.row_height(row) - scale.middle(row))
        axes.text(MARGIN, MARGIN, HINT, size=7.5, color=MUTED, va="center")
        figure.savefig(path, format=suffix[1:], dpi=150, metadata=METADATA[suffix])


def _title(axes: Axes, content: dict[str, Any], top: float) -> None:
    unit, per = macs_unit(content["gmacs"])
    cost = f"{content['params']:,} parameters, {content['gmacs'] * per:.4g} {unit}"
    axes.text(MARGIN, top, content["name"], size=16, weight="bold", color=INK, va="top")
    axes.text(MARGIN, top - 0.33, cost, size=9.5, color=INK, va="top")
    axes.text(MARGIN, top - 0.53, content["paper"], size=8, color=MUTED, va="top")


class _Scale:
    """Mapping of sizes, channels and multiply-adds to inches and colors, the same for all boxes of a plot.

    Args:
        boxes: the input and the stages.
        gmacs: GMACs of the whole model.
    """

    def __init__(self, boxes: Sequence[dict[str, Any]], gmacs: float) -> None:
        shapes = [_cube(box["output"]) for box in boxes]
        # A model of vectors has maps of one pixel, which must stay small.
        self.largest = max(32, *(max(h, w) for h, w, _ in shapes))
        self.channels = max(c for _, _, c in shapes)
        self.most = max(box["gmacs"] for box in boxes) or 1.0
        self.unit, self.per = macs_unit(gmacs)

    def edges(self, box: dict[str, Any]) -> tuple[float, float, float]:
        """Return (height, depth, width) of a box in inches."""
        height, depth, channels = _cube(box["output"])
        tall, deep = (max(2 * THINNEST, TALLEST * (n / self.largest) ** 0.5) for n in (height, depth))
        return tall, deep, max(THINNEST, WIDEST * (channels / self.channels) ** 0.5)

    def middle(self, row: Sequence[dict[str, Any]]) -> float:
        """Return the distance from the top of a row to the middle of its boxes, in inches."""
        return max(tall + SLANT[1] * deep for tall, deep, _ in map(self.edges, row)) / 2

    def row_height(self, row: Sequence[dict[str, Any]]) -> float:
        """Return the height of a row with its labels, in inches."""
        return 2 * self.middle(row) + LINE * (6.5 + max(len(box["layers"]) for box in row))

    def row(self, axes: Axes, row: Sequence[dict[str, Any]], top: float, column: float) -> None:
        """Draw the boxes of one row, arrows between them, and their labels."""
        middle, before = top - self.middle(row), None
        for i, box in enumerate(row):
            centre = MARGIN + column * (i + 0.5)
            reach = self._box(axes, box, centre, middle)
            if before is not None:
                _arrow(axes, before, centre - reach, middle)
            before = centre + reach
            self._labels(axes, box, centre, top - 2 * self.middle(row))

    def _box(self, axes: Axes, box: dict[str, Any], centre: float, middle: float) -> float:
        """Draw a box in oblique projection; return half its width in inches."""
        tall, deep, wide = self.edges(box)
        right, up = SLANT[0] * deep, SLANT[1] * deep
        x, y = centre - (wide + right) / 2, middle - (tall + up) / 2
        front = [(x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall)]
        lid = [front[3], front[2], (x + wide + right, y + tall + up), (x + right, y + tall + up)]
        side = [front[1], (x + wide + right, y + up), lid[2], front[2]]
        for corners, light in ((front, 1.0), (lid, 1.08), (side, 0.86)):
            axes.fill(*zip(*corners, strict=True), facecolor=self._color(box, light), edgecolor=EDGE, linewidth=0.7)
        return (wide + right) / 2

    def _color(self, box: dict[str, Any], light: float) -> list[float]:
        fraction = (box["gmacs"] / self.most) ** 0.5
        base = [p + (d - p) * fraction for p, d in zip(PALE, DEEP, strict=True)] if box["layers"] else INPUT
        return [min(1.0, part * light / 255) for part in base]

    def _labels(self, axes: Axes, box: dict[str, Any], x: float, top: float) -> None:
        """Label a box: lines of (text, points, color, distance to the line before, in lines)."""
        lines = [(size(box["output"]).replace("x", " × "), 9, INK, 1.15)]
        if box["layers"]:
            lines.append((f"{box['params']:,} parameters", 7.5, INK, 1.25))
            lines.append((f"{box['gmacs'] * self.per:,.3f} {self.unit}", 7.5, INK, 1))
            layers = layers_text(box["layers"], "\n").split("\n")
            lines += [(text[:LONGEST], 7, MUTED, 1 if i else 1.35) for i, text in enumerate(layers)]
        y = top - LINE
        axes.text(x, y, box["name"], size=10, weight="bold", color=INK, ha="center", va="center")
        for text, points, color, down in lines:
            y -= LINE * down
            axes.text(x, y, text, size=points, color=color, ha="center", va="center")


def _cube(shape: Sequence[int | None]) -> tuple[int, int, int]:
    """Return (height, width, channels) of an output; a missing or dynamic size is 1."""
    sizes = [1, 1, *(n or 1 for n in shape)]
    return (sizes[-3], sizes[-2], sizes[-1]) if len(shape) > 2 else (sizes[-2], 1, sizes[-1])


def _arrow(axes: Axes, start: float, end: float, y: float) -> None:
    arrow = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 0.9, "shrinkA": 5, "shrinkB": 5, "mutation_scale": 9}
    axes.annotate("", (end, y), (start, y), arrowprops=arrow)
