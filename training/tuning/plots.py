"""Plots of a study and of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.tuning.results import LearningRateResult, Trial
from training.tuning.study import Study
from zoo.common.files import write_atomic

FIRST, MUTED = "#2a78d6", "#8a8a8a"
# Steps at the end of a range test whose loss does not set the axis.
IGNORED = 3


def plot_history(study: Study, trials: list[Trial], metric: str, sign: int) -> None:
    """Plot the metric of each trial, and the best so far.

    Args:
        study: the study; the file is its `history.png`.
        trials: the trials.
        metric: the name of the metric.
        sign: 1 if higher is better, -1 if lower is.
    """
    from matplotlib.figure import Figure

    picture = Figure((6.4, 3.6), layout="constrained")
    axes = picture.subplots()
    known = [trial for trial in trials if trial.value is not None]
    for state, marker, color in (("complete", "o", FIRST), ("pruned", "x", MUTED)):
        points = [(trial.number, trial.value) for trial in known if trial.state == state]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, color=color, label=state)
    best: list[tuple[int, float]] = []
    for trial in known:
        if trial.state == "complete" and (not best or sign * (trial.value - best[-1][1]) > 0):
            best.append((trial.number, trial.value))
    steps = [*best, (trials[-1].number, best[-1][1])] if best else []
    if steps:
        axes.step(*zip(*steps, strict=True), where="post", color=FIRST, linewidth=1, label="best so far")
    axes.set(xlabel="trial", ylabel=metric)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    study.save_plot("history", picture)


def plot_importance(study: Study, importance: dict[str, float], metric: str) -> None:
    """Plot the fraction of the variance that each key explains; nothing if none is known."""
    from matplotlib.figure import Figure

    if not importance:
        return
    picture = Figure((6.4, 1.0 + 0.4 * len(importance)), layout="constrained")
    axes = picture.subplots()
    names = sorted(importance, key=lambda name: importance[name])
    bars = axes.barh(names, [importance[name] for name in names], color=FIRST)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.1), xlabel=f"explained variance of {metric} (fANOVA)")
    study.save_plot("importance", picture)


def save_range_test(result: LearningRateResult, path: Path) -> None:
    """Save a plot of the losses over the rates as PNG, atomically; raises RunError."""
    write_atomic(path, lambda temporary: _range_test(result).savefig(temporary, format="png"))


def _range_test(result: LearningRateResult) -> Any:
    """Return a figure of the losses over the rates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(result.rates, result.losses, color="0.8", linewidth=1, label="loss of a batch")
    axes.plot(result.rates, result.smoothed, linewidth=2, label="smoothed")
    if result.learning_rate:
        axes.axvline(
            result.learning_rate, color="0.3", linestyle=(0, (4, 2)), label=f"steepest: {result.learning_rate:.2g}"
        )
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    # A diverged loss would compress the rest of the plot.
    axes.set_ylim(top=min(max(result.losses), 1.5 * max(result.smoothed[:-IGNORED])))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(linewidth=0.5, alpha=0.5)
    axes.legend(frameon=False)
    return figure
