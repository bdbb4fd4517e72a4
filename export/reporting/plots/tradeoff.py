"""Accuracy against cost, with the Pareto front."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from export.reporting.plots.canvas import (
    FIRST,
    INK,
    MUTED,
    SECOND,
    WIDTH,
    canvas,
    freeze_layout,
    percent_tick,
    round_ticks,
    shorten,
    to_svg,
)
from export.reporting.plots.labels import free_position, leader_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path

MAX_LABELS = 18
MARKERS = "os^Dvp*"
LABEL_LENGTH = 28


class Point(NamedTuple):
    """An artifact in a plot of accuracy against cost.

    Attributes:
        label: Text next to the marker.
        cost: Bytes or milliseconds, above zero.
        accuracy: Accuracy, 0 to 1.
        passed: False if the artifact failed verification.
        group: The run of the artifact, drawn with its own marker; "" for a single run.
    """

    label: str
    cost: float
    accuracy: float
    passed: bool = True
    group: str = ""


def is_dominated(point: Point, points: Sequence[Point]) -> bool:
    """Return whether another artifact is at least as good in accuracy and cost, and better in one.

    Args:
        point: The artifact.
        points: All artifacts; those that failed verification dominate none.
    """
    others = [p for p in points if p.passed and (p.cost, p.accuracy) != (point.cost, point.accuracy)]
    return any(p.cost <= point.cost and p.accuracy >= point.accuracy for p in others)


def draw_tradeoff(
    name: str, points: list[Point], *, alt: str, tick: Callable[[float], str], source: float | None = None
) -> str:
    """Draw accuracy against cost, with the cost on a logarithmic axis.

    Args:
        name: Prefix of the ids inside the SVG, unique in the page.
        points: At least one.
        alt: Text for readers who do not see the plot.
        tick: Function from a cost to its tick label on the x axis.
        source: Accuracy of the source model of all artifacts, drawn as a line.

    Returns:
        An `<svg>` element.
    """
    with canvas((WIDTH, 3.5)) as figure:
        axes = figure.subplots()
        _cost_axis(axes, [p.cost for p in points], tick)
        _accuracy_axis(axes, [p.accuracy for p in points] + ([source] if source is not None else []))
        if source is not None:
            axes.axhline(source, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        best = sorted((p for p in points if p.passed and not is_dominated(p, points)), key=lambda p: p.cost)
        # Drawn by corners instead of a drawstyle, so that labels can avoid these lines.
        corners = [
            (cost, a.accuracy) for a, b in zip(best, best[1:] + best[-1:], strict=True) for cost in (a.cost, b.cost)
        ]
        axes.plot(*zip(*corners, strict=True), color=FIRST, linewidth=1, alpha=0.5)
        guides = list(axes.lines)
        # The Pareto front comes first, so that it gets the best label positions.
        ordered = best + [p for p in points if p not in best]
        groups = _groups(axes, points)
        for point in ordered:
            _mark(axes, point, groups[point.group], faint=point not in best)
        freeze_layout(figure)
        # Many labels would hide the points: label the Pareto front only.
        count = len(points) if len(points) <= MAX_LABELS else len(best)
        guiding = [line.get_transform().transform_path(line.get_path()) for line in guides]
        _add_labels(axes, ordered, count, best, guiding)
        return to_svg(figure, name, alt)


def _cost_axis(axes: Axes, costs: list[float], tick: Callable[[float], str]) -> None:
    """Format a logarithmic axis with ticks at 1, 2 and 5, and space for labels at both ends."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = min(costs), max(costs)
    # A range below a factor of 7 could contain a single tick.
    pad = max((high / low) ** 0.18, 1.6, (7 * low / high) ** 0.5)
    axes.set_xscale("log")
    axes.set_xlim(low / pad, high * pad)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 60 else (1,), numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: tick(value))


def _accuracy_axis(axes: Axes, values: list[float]) -> None:
    """Format an axis of percentages that does not magnify a tenth of a point."""
    low, high = min(values), max(values)
    pad = max((high - low) * 0.3, (0.01 - (high - low)) / 2, 0.002)
    axes.set_ylim(low - pad, high + pad)
    axes.yaxis.set_major_locator(round_ticks(5))
    # Above 100% there is space for a label, but no tick.
    axes.yaxis.set_major_formatter(lambda value, _: percent_tick(value) if 0 <= round(value, 9) <= 1 else "")


def _groups(axes: Axes, points: Sequence[Point]) -> dict[str, str]:
    """Return the marker of each group; adds a legend for several groups."""
    groups = dict(zip(sorted({point.group for point in points}), itertools.cycle(MARKERS), strict=False))
    if len(groups) > 1:
        for group, marker in groups.items():
            axes.plot([], [], marker, color=FIRST, markersize=7, markeredgewidth=0, label=shorten(group, LABEL_LENGTH))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderpad=0.2, handletextpad=0.2)
    return groups


def _mark(axes: Axes, point: Point, marker: str, *, faint: bool) -> None:
    """Draw an artifact with the marker of its group, faint if dominated, as a cross if it failed verification."""
    marker, color, edge = (marker, FIRST, 0) if point.passed else ("x", SECOND, 2)
    line = axes.plot(point.cost, point.accuracy, marker, color=color, markersize=7, markeredgewidth=edge, zorder=3)
    line[0].set_alpha(0.35 if faint and point.passed else 1)


def _add_labels(axes: Axes, points: list[Point], count: int, best: list[Point], lines: list[Path]) -> None:
    """Add the names of the first `count` points at the nearest free positions, with a line to distant ones."""
    from matplotlib.transforms import Bbox

    anchors = [tuple(axes.transData.transform((p.cost, p.accuracy))) for p in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in anchors]
    for point, anchor in zip(points[:count], anchors, strict=False):
        label = point.label.removeprefix(f"{point.group}: ")
        text = axes.annotate(shorten(label, LABEL_LENGTH), anchor, xycoords="figure pixels", va="bottom", fontsize=9)
        text.set(color=INK if point in best else MUTED, zorder=4)
        box = free_position(anchor, text.get_window_extent(), taken, lines, axes.bbox)
        text.set_position(box.p0)
        taken.append(box)
        leader = leader_line(anchor, box)
        if leader.get_extents().size.max() > 8:
            lines.append(leader)
            arrow = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 4, "shrinkB": 0}
            pixels = {"xycoords": "figure pixels", "textcoords": "figure pixels"}
            axes.annotate("", leader.vertices[1], anchor, arrowprops=arrow, zorder=2, **pixels)
