"""The order of directed graphs that files describe, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from zoo.common.errors import DataError


def topological_order(before: Sequence[Collection[int]], name: Callable[[int], str] = str) -> list[int]:
    """Return the nodes of a graph in topological order, as they are numbered where that order fits.

    Takes linear time, and memory for the path in place of calls inside calls.

    Args:
        before: the nodes that each node needs, by their numbers.
        name: returns the name of a node for messages.

    Raises:
        DataError: a node needs its own output.
    """
    order: list[int] = []
    done, on_path = [False] * len(before), [False] * len(before)
    for start in range(len(before)):
        path = [] if done[start] else [(start, iter(before[start]))]
        while path:
            node, waiting = path[-1]
            on_path[node] = True
            needed = next((other for other in waiting if not done[other]), None)
            if needed is None:
                path.pop()
                done[node], on_path[node] = True, False
                order.append(node)
            elif on_path[needed]:
                raise DataError(f"its graph has a cycle: {_shortened(name(needed))} needs its own output")
            else:
                path.append((needed, iter(before[needed])))
    return order


def check_calls(calls: Mapping[Any, Iterable[Any]], kind: str) -> None:
    """Raise DataError if a function or graph calls itself, also through others; unknown ones do not count.

    Args:
        calls: the names that each one calls, by its name.
        kind: what they are, for the message.
    """
    places = {name: place for place, name in enumerate(calls)}
    names = list(calls)
    before = [[places[other] for other in called if other in places] for called in calls.values()]
    topological_order(before, lambda place: f"the {kind} {names[place]!r}")


def check_unique(names: Iterable[Hashable], kind: str) -> None:
    """Raise DataError if a name occurs twice."""
    seen = set()
    for name in names:
        if name in seen:
            raise DataError(f"it has two {kind} {_shortened(repr(name))}")
        seen.add(name)


def _shortened(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:80]}…"
