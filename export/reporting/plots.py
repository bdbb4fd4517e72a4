"""The plots of a report: matplotlib draws them, and the page around them gives the colours."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import Bbox

# Matplotlib writes colours as hex; these stand in for the page's CSS variables, for light and dark alike.
INK, MUTED, RULE, PAPER, FIRST, SECOND = (f"#00000{digit}" for digit in range(1, 7))
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", FIRST: "first", SECOND: "second"}

WIDTH = 5.0  # inches: 360 units, so that ten-point text is still ten pixels on a phone
NUMBERED_CLASSES = 30
DRAWN_CLASSES = 200
SHADES = 16
LABEL_LENGTH = 18
NAMED_POINTS = 18
SHAPES = "os^Dvp*"

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "zoo",
    "grid.color": RULE,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.color", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width", "grid.linewidth"), 0.7),
    **dict.fromkeys(("font.size", "axes.labelsize", "legend.fontsize"), 10),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 9.5),
    **dict.fromkeys(("figure.dpi", "savefig.dpi"), 72),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
}


class Point(NamedTuple):
    """An artifact in a plot of accuracy against what it costs.

    Attributes:
        label: What stands next to the marker.
        cost: Bytes or milliseconds, above zero.
        accuracy: Share of right answers, 0 to 1.
        passed: False only where the artifact is not equal to its source.
        group: The run it came from, drawn with a shape of its own; "" if there is one only.
    """

    label: str
    cost: float
    accuracy: float
    passed: bool = True
    group: str = ""


def dominated(point: Point, points: Sequence[Point]) -> bool:
    """Say whether another artifact is at least as good in both respects and better in one.

    Args:
        point: The one in question.
        points: All of them; those that failed parity beat nobody.

    Returns:
        True if no one has a reason to choose `point`.
    """
    others = [p for p in points if p.passed and (p.cost, p.accuracy) != (point.cost, point.accuracy)]
    return any(p.cost <= point.cost and p.accuracy >= point.accuracy for p in others)


def percent_tick(share: float) -> str:
    """Write a share as a percentage, with no more digits than it has."""
    return f"{100 * share:.4g}%"


def curves(
    name: str, series: dict[str, list[tuple[int, float]]], *, alt: str, tick: Callable, height: float = 2.7
) -> str:
    """Draw lines over epochs.

    Args:
        name: Prefix of the ids inside the SVG, unique in the page.
        series: (epoch, value) pairs of each line; the first is drawn solid, the second dashed.
        alt: What a reader who does not see the plot should know.
        tick: From a value to the text of its tick on the y axis.
        height: In inches.

    Returns:
        An `<svg>` element.
    """
    with _canvas((WIDTH, height)) as figure:
        axes = figure.subplots()
        axes.set_prop_cycle(color=(FIRST, SECOND), linestyle=("solid", (0, (5, 1.5))))
        for label, points in series.items():
            marker = "o" if len(points) <= 12 else ""
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.8, marker=marker, markersize=4.5)
        _epoch_axis(axes, [epoch for points in series.values() for epoch, _ in points])
        axes.yaxis.set_major_locator(_ticks(4 if height > 2 else 2))
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))
        if len(series) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderpad=0.2, handlelength=2.4)
        return _svg(figure, name, alt)


def confusion(matrix: list[list[int]], labels: Sequence[str], *, alt: str) -> str:
    """Draw a confusion matrix, each cell shaded by its share of the row.

    Args:
        matrix: Counts of examples, shape (classes, classes); rows are the truth, columns the prediction.
        labels: One for each class.
        alt: What a reader who does not see the plot should know.

    Returns:
        An `<svg>` element, with the counts up to `NUMBERED_CLASSES` classes and thinned labels above.
    """
    size = WIDTH if len(matrix) <= 12 else 7.2
    with _canvas((size, size)) as figure:
        axes = figure.subplots()
        axes.set(aspect="equal", xlim=(0, len(matrix)), ylim=(len(matrix), 0))
        axes.set(xlabel="Prediction", ylabel="Truth")
        axes.grid(False)
        axes.spines[:].set(visible=True, color=RULE)
        axes.tick_params(length=0)
        _class_ticks(axes, [_short(label) for label in labels])
        _shade(axes, matrix)
        if len(matrix) <= NUMBERED_CLASSES:
            _freeze(figure)
            _number(axes, matrix)
        return _svg(figure, "confusion", alt)


def tradeoff(
    name: str, points: list[Point], *, alt: str, tick: Callable[[float], str], source: float | None = None
) -> str:
    """Draw accuracy against cost, the cost on a logarithmic axis.

    Args:
        name: Prefix of the ids inside the SVG, unique in the page.
        points: At least one.
        alt: What a reader who does not see the plot should know.
        tick: From a cost to its text on the x axis.
        source: Accuracy of the model that all artifacts came from, drawn as a line.

    Returns:
        An `<svg>` element.
    """
    with _canvas((WIDTH, 3.5)) as figure:
        axes = figure.subplots()
        _cost_axis(axes, [p.cost for p in points], tick)
        _accuracy_axis(axes, [p.accuracy for p in points] + ([source] if source is not None else []))
        if source is not None:
            axes.axhline(source, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        best = sorted((p for p in points if p.passed and not dominated(p, points)), key=lambda p: p.cost)
        # Drawn corner by corner, not by drawstyle, so that labels can keep off these lines.
        corners = [
            (cost, a.accuracy) for a, b in zip(best, best[1:] + best[-1:], strict=True) for cost in (a.cost, b.cost)
        ]
        axes.plot(*zip(*corners, strict=True), color=FIRST, linewidth=1, alpha=0.5)
        guides = list(axes.lines)
        # The ones worth choosing come first, so that they get the best places.
        ordered = best + [p for p in points if p not in best]
        groups = _groups(axes, points)
        for point in ordered:
            _mark(axes, point, groups[point.group], faint=point not in best)
        _freeze(figure)
        # Names of all would hide the points of a crowd.
        count = len(points) if len(points) <= NAMED_POINTS else len(best)
        guiding = [line.get_transform().transform_path(line.get_path()) for line in guides]
        _label(axes, ordered, count, best, guiding)
        return _svg(figure, name, alt)


@contextlib.contextmanager
def _canvas(size: tuple[float, float]) -> Iterator[Figure]:
    """Give an empty figure (inches) in the report's own style, whatever the user's matplotlibrc says."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(STYLE, after_reset=True), warnings.catch_warnings():
        # The browser's fonts draw the text; a glyph that matplotlib's own lacks only makes a width inexact.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure(figsize=size, layout="constrained")


def _svg(figure: Figure, name: str, alt: str) -> str:
    """Turn a figure into an `<svg>` element for a page: no namespaces, unique ids, the page's colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    used = set(re.findall(r"#([\w-]+)", " ".join(v for node in root.iter() for v in node.attrib.values())))
    for parent in root.iter():
        for child in [c for c in parent if c.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {key.rpartition("}")[2]: value for key, value in parent.attrib.items()}
        _adopt(parent.attrib, name, used)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode")


def _adopt(attributes: dict[str, str], name: str, used: set[str]) -> None:
    """Rewrite one element's attributes for `_svg`: ids that nobody refers to go, the others get a prefix."""
    if attributes.get("id") not in used:
        attributes.pop("id", None)
    for key, value in attributes.items():
        for colour, variable in VARIABLES.items():
            value = value.replace(colour, f"var(--{variable})")
        value = f"{name}-{value}" if key == "id" else re.sub(r"(^|\()#", rf"\1#{name}-", value)
        attributes[key] = value


def _freeze(figure: Figure) -> None:
    """Settle the layout, so that what is placed in pixels afterwards stays where it is."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _ticks(count: int, *, integer: bool = False) -> MaxNLocator:
    """Give a locator of about `count` round values."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, integer=integer, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)


def _epoch_axis(axes: Axes, epochs: list[int]) -> None:
    """Lay out the x axis of the curves."""
    margin = max(0.5, (max(epochs) - min(epochs)) * 0.02)
    axes.set(xlim=(min(epochs) - margin, max(epochs) + margin), xlabel="Epoch")
    axes.xaxis.set_major_locator(_ticks(8, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _cost_axis(axes: Axes, costs: list[float], tick: Callable[[float], str]) -> None:
    """Lay out a logarithmic axis with ticks at 1, 2 and 5, and room for labels at both ends."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = min(costs), max(costs)
    # Less than a factor of 7 in all could hold a single one of these ticks.
    pad = max((high / low) ** 0.18, 1.6, (7 * low / high) ** 0.5)
    axes.set_xscale("log")
    axes.set_xlim(low / pad, high * pad)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 60 else (1,), numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: tick(value))


def _accuracy_axis(axes: Axes, values: list[float]) -> None:
    """Lay out an axis of percentages that never makes a mountain of a tenth of a point."""
    low, high = min(values), max(values)
    pad = max((high - low) * 0.3, (0.01 - (high - low)) / 2, 0.002)
    axes.set_ylim(low - pad, high + pad)
    axes.yaxis.set_major_locator(_ticks(5))
    # Beyond 100% there is room for a label, but no value.
    axes.yaxis.set_major_formatter(lambda value, _: percent_tick(value) if 0 <= round(value, 9) <= 1 else "")


def _groups(axes: Axes, points: Sequence[Point]) -> dict[str, str]:
    """Return the shape of each group, and explain them where there are several."""
    groups = dict(zip(sorted({point.group for point in points}), itertools.cycle(SHAPES), strict=False))
    if len(groups) > 1:
        for group, shape in groups.items():
            axes.plot([], [], shape, color=FIRST, markersize=7, markeredgewidth=0, label=_short(group, 28))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderpad=0.2, handletextpad=0.2)
    return groups


def _mark(axes: Axes, point: Point, shape: str, *, faint: bool) -> None:
    """Draw one artifact: the shape of its group, faint if dominated, a cross if it failed parity."""
    shape, colour, edge = (shape, FIRST, 0) if point.passed else ("x", SECOND, 2)
    line = axes.plot(point.cost, point.accuracy, shape, color=colour, markersize=7, markeredgewidth=edge, zorder=3)
    line[0].set_alpha(0.35 if faint and point.passed else 1)


def _label(axes: Axes, points: list[Point], count: int, best: list[Point], lines: list[Path]) -> None:
    """Write the names of the first `count` at the nearest free places, with a thin line to them if need be."""
    from matplotlib.transforms import Bbox

    anchors = [tuple(axes.transData.transform((p.cost, p.accuracy))) for p in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in anchors]
    for point, anchor in zip(points[:count], anchors, strict=False):
        label = point.label.removeprefix(f"{point.group}: ")
        text = axes.annotate(_short(label, 28), anchor, xycoords="figure pixels", va="bottom", fontsize=9)
        text.set(color=INK if point in best else MUTED, zorder=4)
        box = _free_place(anchor, text.get_window_extent(), taken, lines, axes.bbox)
        text.set_position(box.p0)
        taken.append(box)
        leader = _leader(anchor, box)
        if leader.get_extents().size.max() > 8:
            lines.append(leader)
            arrow = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 4, "shrinkB": 0}
            pixels = {"xycoords": "figure pixels", "textcoords": "figure pixels"}
            axes.annotate("", leader.vertices[1], anchor, arrowprops=arrow, zorder=2, **pixels)


def _free_place(anchor: tuple[float, float], extent: Bbox, taken: list[Bbox], lines: list[Path], frame: Bbox) -> Bbox:
    """Look for a place near a point that covers no other box and no line; else give the least bad one."""
    boxes = list(_rings(anchor, extent.width, extent.height))
    chosen, least = boxes[0], math.inf
    for box in boxes:
        if frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1:
            leader = _leader(anchor, box)
            cost = 4 * box.count_overlaps(taken)
            cost += 2 * sum(line.intersects_bbox(box, filled=False) for line in lines)
            others = (other for other in taken if not other.contains(*anchor))
            cost += sum(leader.intersects_bbox(other, filled=False) for other in others)
            if cost < least:
                chosen, least = box, cost
            if not cost:
                break
    return chosen


def _rings(anchor: tuple[float, float], width: float, height: float) -> Iterator[Bbox]:
    """Give boxes around a point, nearest first, beside it before above and below."""
    from matplotlib.transforms import Bbox

    for gap in range(6, 150, 7):
        for across, up in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1)):
            left = anchor[0] + gap * across - width * (1 - across) / 2
            bottom = anchor[1] + gap * up * 0.8 - height * (1 - up) / 2
            yield Bbox.from_bounds(left, bottom, width, height)


def _leader(anchor: tuple[float, float], box: Bbox) -> Path:
    """Give the straight line from a point to the nearest point of a box."""
    from matplotlib.path import Path

    x, y = anchor
    return Path([anchor, (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))])


def _short(label: str, length: int = LABEL_LENGTH) -> str:
    """Fit a label: one line, nothing that XML forbids, at most so many characters."""
    label = " ".join(re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", label).split())
    return label if len(label) <= length else label[: length - 1] + "…"


def _class_ticks(axes: Axes, labels: list[str]) -> None:
    """Name the classes on both axes, every so many only where they would run into each other."""
    step = 1 if len(labels) <= NUMBERED_CLASSES else math.ceil(len(labels) / 25)
    places = [index + 0.5 for index in range(0, len(labels), step)]
    upright = all(len(label) <= (4 if len(labels) <= 12 else 2) for label in labels)
    axes.set_xticks(places, labels[::step], rotation=0 if upright else 90)
    axes.set_yticks(places, labels[::step])


def _opacity(count: int, row: list[int]) -> float:
    """Give a cell's opacity; the root lifts the rare confusions, which are what one looks for."""
    return 0.08 + 0.92 * math.sqrt(count / sum(row))


def _shade(axes: Axes, matrix: list[list[int]]) -> None:
    """Fill the cells that are not zero, one path a shade: 200 classes would else be 40,000 elements."""
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
    """Write the counts into the cells, as large as the longest allows; zeros stay empty."""
    digits = max(len(str(count)) for row in matrix for count in row)
    size = min(10.5, axes.bbox.width / len(matrix) * 0.9 / (0.64 * max(digits, 2)))
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            if count:
                colour = PAPER if _opacity(count, row) > 0.55 else INK
                axes.text(j + 0.5, i + 0.52, str(count), size=size, color=colour, ha="center", va="center")
