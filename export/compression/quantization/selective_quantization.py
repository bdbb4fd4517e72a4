"""Selective quantization: find the fewest layers to exclude from int8 so that accuracy stays within a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from zoo.common.errors import ExportError


@dataclasses.dataclass(frozen=True)
class SelectiveQuantization:
    """The result of a search.

    Args:
        excluded: layers excluded from int8, the most useful first.
        cost: cost of int8 with these layers excluded.
        int8_cost: cost of int8 with no layer excluded.
        savings: for each layer, how much less int8 costs if only this layer is excluded.
        trials: number of quantized models that were evaluated.
    """

    excluded: tuple[str, ...]
    cost: float
    int8_cost: float
    savings: dict[str, float]
    trials: int


def select_layers(
    names: Sequence[str], cost: Callable[[frozenset[str]], float], budget: float
) -> SelectiveQuantization:
    """Find the fewest layers to exclude from quantization.

    Excludes each layer alone, adds the layers with the largest savings until the cost is within the budget, and then
    drops those that turn out to be unnecessary.

    Args:
        names: layers that may be excluded.
        cost: `cost(excluded)` quantizes all other layers, evaluates the model and returns its loss of accuracy.
        budget: maximum cost.

    Raises:
        ExportError: the cost exceeds the budget even with all `names` excluded.
    """
    known: dict[frozenset[str], float] = {}

    def cost_of(excluded: Sequence[str]) -> float:
        key = frozenset(excluded)
        if key not in known:
            known[key] = cost(key)
        return known[key]

    int8_cost = cost_of(())
    if int8_cost <= budget:
        return SelectiveQuantization((), int8_cost, int8_cost, {}, len(known))
    if cost_of(names) > budget:
        raise ExportError(
            f"int8 loses {int8_cost:.4g}, and {cost_of(names):.4g} with all supported layers in floating point; "
            f"the budget is {budget:.4g}. Quantize the weights only, or use quantization-aware training."
        )
    savings = {name: int8_cost - cost_of((name,)) for name in names}
    ranked = sorted(names, key=savings.__getitem__, reverse=True)
    count = next(k for k in range(1, len(ranked) + 1) if cost_of(ranked[:k]) <= budget)
    excluded = _fewest(ranked[:count], lambda chosen: cost_of(chosen) <= budget)
    return SelectiveQuantization(tuple(excluded), cost_of(excluded), int8_cost, savings, len(known))


def _fewest(names: Sequence[str], is_enough: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the names without the unnecessary ones; tries to drop the smallest saving first."""
    chosen = list(names)
    for name in reversed(names):
        rest = [other for other in chosen if other != name]
        if rest and is_enough(rest):
            chosen = rest
    return chosen
