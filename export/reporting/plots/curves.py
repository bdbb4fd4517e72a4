"""Curves over the epochs of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from export.reporting.plots.canvas import FIRST, SECOND, WIDTH, canvas, round_ticks, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_curves(
    name: str, series: dict[str, list[tuple[int, float]]], *, alt: str, tick: Callable, height: float = 2.7
) -> str:
    """Draw curves over epochs.

    Args:
        name: Prefix of the ids inside the SVG, unique in the page.
        series: (epoch, value) pairs of each curve; the first is solid, the second dashed.
        alt: Text for readers who do not see the plot.
        tick: Function from a value to its tick label on the y axis.
        height: In inches.

    Returns:
        An `<svg>` element.
    """
    with canvas((WIDTH, height)) as figure:
        axes = figure.subplots()
        axes.set_prop_cycle(color=(FIRST, SECOND), linestyle=("solid", (0, (5, 1.5))))
        for label, points in series.items():
            marker = "o" if len(points) <= 12 else ""
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.8, marker=marker, markersize=4.5)
        _epoch_axis(axes, [epoch for points in series.values() for epoch, _ in points])
        axes.yaxis.set_major_locator(round_ticks(4 if height > 2 else 2))
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))
        if len(series) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderpad=0.2, handlelength=2.4)
        return to_svg(figure, name, alt)


def _epoch_axis(axes: Axes, epochs: list[int]) -> None:
    """Format the x axis."""
    margin = max(0.5, (max(epochs) - min(epochs)) * 0.02)
    axes.set(xlim=(min(epochs) - margin, max(epochs) + margin), xlabel="Epoch")
    axes.xaxis.set_major_locator(round_ticks(8, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
