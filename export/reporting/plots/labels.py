"""Placement of labels near the points of a plot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox


def free_position(anchor: tuple[float, float], extent: Bbox, taken: list[Bbox], lines: list[Path], frame: Bbox) -> Bbox:
    """Return a box near a point that overlaps no other box and no line, or the one with the least overlap."""
    boxes = list(_candidates(anchor, extent.width, extent.height))
    chosen, least = boxes[0], math.inf
    for box in boxes:
        if frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1:
            leader = leader_line(anchor, box)
            cost = 4 * box.count_overlaps(taken)
            cost += 2 * sum(line.intersects_bbox(box, filled=False) for line in lines)
            others = (other for other in taken if not other.contains(*anchor))
            cost += sum(leader.intersects_bbox(other, filled=False) for other in others)
            if cost < least:
                chosen, least = box, cost
            if not cost:
                break
    return chosen


def _candidates(anchor: tuple[float, float], width: float, height: float) -> Iterator[Bbox]:
    """Yield boxes around a point, nearest first; left and right before above and below."""
    from matplotlib.transforms import Bbox

    for gap in range(6, 150, 7):
        for across, up in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1)):
            left = anchor[0] + gap * across - width * (1 - across) / 2
            bottom = anchor[1] + gap * up * 0.8 - height * (1 - up) / 2
            yield Bbox.from_bounds(left, bottom, width, height)


def leader_line(anchor: tuple[float, float], box: Bbox) -> Path:
    """Return the line from a point to the nearest point of a box."""
    from matplotlib.path import Path

    x, y = anchor
    return Path([anchor, (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))])
