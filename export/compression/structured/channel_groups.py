"""Channel groups: the channels of a model that can only be removed together.

Each layer that produces channels numbers them, and every tensor carries the numbers along its last axis: a
concatenation appends them, flattening repeats them for each pixel, and a sum joins those of its inputs.
"""

from __future__ import annotations

from typing import Any

from zoo.common.lazy import np


class ChannelGroups:
    """The channels of a model, joined to groups.

    Attributes:
        inputs: numbers of the channels that each layer reads, by its name.
        outputs: numbers of the channels that each layer produces, by its name.
        roots: the representative of each number's group; set by `resolve`.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.roots: Any = None
        self._parents: list[int] = []
        self._producers: list[str] = []
        self._importance: list[float] = []
        self._pinned: set[int] = set()

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self._parents)

    @property
    def pinned(self) -> frozenset[int]:
        """Numbers of the channels that are pinned."""
        return frozenset(self._pinned)

    def add(self, count: int, producer: str = "") -> Any:
        """Return new numbers for the channels that a layer produces."""
        first = self.count
        self._parents.extend(range(first, first + count))
        self._producers.extend([producer] * count)
        self._importance.extend([0.0] * count)
        return np.arange(first, first + count)

    def add_importance(self, channels: Any, values: Any, weight: float = 1.0) -> None:
        """Add to the importance of channels; values (channels,) count relative to their mean."""
        for channel, value in zip(channels, values / (values.mean() + 1e-12), strict=True):
            self._importance[channel] += weight * float(value)

    def pin(self, channels: Any) -> Any:
        """Mark channels that cannot be removed; returns them."""
        self._pinned.update(channels.tolist())
        return channels

    def join(self, first: Any, second: Any) -> Any:
        """Join channels pairwise; pins all if the numbers differ (broadcasting). Returns those of the larger tensor."""
        if len(first) != len(second):
            return self.pin(max((self.pin(first), self.pin(second)), key=len))
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            self._parents[self._root(a)] = self._root(b)
        return first

    def resolve(self) -> None:
        """Set `roots`, after all channels are joined."""
        self.roots = np.array([self._root(i) for i in range(self.count)])

    def ranked(self) -> list[tuple[Any, bool]]:
        """Return the removable channels, one set for each group of layers that produce them together.

        Returns:
            For each set its channels, the least important first, and whether all of them can be removed: each layer
            then still produces the channels that it shares with more layers.
        """
        importance, producers = np.zeros(self.count), [set() for _ in range(self.count)]
        for i, root in enumerate(self.roots.tolist()):
            importance[root] += self._importance[i]
            producers[root].add(self._producers[i])
        pinned, sets = {int(self.roots[i]) for i in self._pinned}, {}
        for root in np.unique(self.roots).tolist():
            if root not in pinned:
                sets.setdefault(frozenset(producers[root] - {""}), []).append(root)
        return [
            (np.array(group)[np.argsort(importance[group], kind="stable")], any(layers < others for others in sets))
            for layers, group in sets.items()
        ]

    def _root(self, i: int) -> int:
        while self._parents[i] != i:
            self._parents[i] = i = self._parents[self._parents[i]]
        return i
