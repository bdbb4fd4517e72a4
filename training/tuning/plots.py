"""The plots of a study: what each trial reached, and which options mattered."""

from __future__ import annotations

from typing import Any

from training.tuning.study import Study

FIRST, MUTED = "#2a78d6", "#8a8a8a"


def draw_history(study: Study, rows: list[dict[str, Any]], figure: str, sign: int) -> None:
    """Draw what each trial reached, and the best so far.

    Args:
        study: where `history.png` goes.
        rows: what is known of each trial.
        figure: the name of what was compared.
        sign: 1 if more is better, -1 if less is.
    """
    from matplotlib.figure import Figure

    picture = Figure((6.4, 3.6), layout="constrained")
    axes = picture.subplots()
    known = [row for row in rows if row[figure] is not None]
    for state, marker, color in (("complete", "o", FIRST), ("pruned", "x", MUTED)):
        points = [(row["trial"], row[figure]) for row in known if row["state"] == state]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, color=color, label=state)
    best: list[tuple[int, float]] = []
    for row in known:
        if row["state"] == "complete" and (not best or sign * (row[figure] - best[-1][1]) > 0):
            best.append((row["trial"], row[figure]))
    steps = [*best, (rows[-1]["trial"], best[-1][1])] if best else []
    if steps:
        axes.step(*zip(*steps, strict=True), where="post", color=FIRST, linewidth=1, label="best so far")
    axes.set(xlabel="trial", ylabel=figure)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    study.draw("history", picture)


def draw_importance(study: Study, importance: dict[str, float], figure: str) -> None:
    """Draw the share of what the trials differ in that each key explains; nothing if none is known."""
    from matplotlib.figure import Figure

    if not importance:
        return
    picture = Figure((6.4, 1.0 + 0.4 * len(importance)), layout="constrained")
    axes = picture.subplots()
    names = sorted(importance, key=lambda name: importance[name])
    bars = axes.barh(names, [importance[name] for name in names], color=FIRST)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.1), xlabel=f"share of the differences in {figure} (fANOVA)")
    study.draw("importance", picture)
