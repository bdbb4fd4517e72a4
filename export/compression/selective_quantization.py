"""When int8 costs too much: which layers cost it, and the fewest that must stay in floating point."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from zoo.common.errors import ExportError


@dataclasses.dataclass(frozen=True)
class Rescue:
    """What was found.

    Args:
        floating: layers that stay in floating point, the one that helps most first.
        cost: what int8 costs with them.
        unaided: what it costs without.
        saves: for each layer that was tried alone, how much less int8 costs if it stays in floating point.
        trials: how many networks were quantized and judged.
    """

    floating: tuple[str, ...]
    cost: float
    unaided: float
    saves: dict[str, float]
    trials: int


def rescue(names: Sequence[str], cost: Callable[[frozenset[str]], float], budget: float) -> Rescue:
    """Find the fewest layers to leave in floating point.

    Each layer is tried alone; the ones that save most are added until the budget holds, and those that turn out not
    to be needed are taken out again.

    Args:
        names: layers that may stay in floating point.
        cost: quantizes all layers but these, judges the result, and returns what is lost; lower is better.
        budget: how much may be lost.

    Raises:
        ExportError: the budget does not hold even with all `names` in floating point.
    """
    known: dict[frozenset[str], float] = {}

    def judged(floating: Sequence[str]) -> float:
        key = frozenset(floating)
        if key not in known:
            known[key] = cost(key)
        return known[key]

    unaided = judged(())
    if unaided <= budget:
        return Rescue((), unaided, unaided, {}, len(known))
    if judged(names) > budget:
        raise ExportError(
            f"int8 loses {unaided:.4g} and {judged(names):.4g} with all layers that may stay in floating point; "
            f"the budget is {budget:.4g}. Quantize the weights only, or train with quantization."
        )
    saves = {name: unaided - judged((name,)) for name in names}
    ranked = sorted(names, key=saves.__getitem__, reverse=True)
    count = next(k for k in range(1, len(ranked) + 1) if judged(ranked[:k]) <= budget)
    floating = _fewest(ranked[:count], lambda chosen: judged(chosen) <= budget)
    return Rescue(tuple(floating), judged(floating), unaided, saves, len(known))


def _fewest(names: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the names without those that are not needed, tried from the one that saves least."""
    chosen = list(names)
    for name in reversed(names):
        rest = [other for other in chosen if other != name]
        if rest and holds(rest):
            chosen = rest
    return chosen


def scope(name: str) -> str:
    """Return the regular expression by which LiteRT Quantizer finds the operators of a layer, as it names them.

    An operator is called after its output, NETWORK/LAYER/operation;NETWORK/OTHER/operation where several were fused,
    and Keras may number a layer's scope.
    """
    return rf"(^|.*[/;]){re.escape(name)}(_\d+)?([/;].*|$)"
