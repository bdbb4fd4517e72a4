"""Show the progress of a training: a bar on a terminal, a line for each epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Seconds between two reads of the running metrics, which wait for the step on a GPU.
REFRESH = 0.25


class ProgressDisplay:
    """Progress on standard error: a bar on a terminal, lines elsewhere.

    Args:
        name: the name of the recipe.
        epochs: number of epochs.
        steps: steps in an epoch.
        batch_size: examples in a step.
        enabled: whether to show anything.
    """

    def __init__(self, name: str, epochs: int, steps: int, batch_size: int, enabled: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._epochs, self._steps, self._batch_size, self._enabled = epochs, steps, batch_size, enabled
        self.console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        self._bar = Progress(*columns, console=self.console, disable=not (enabled and self.console.is_terminal))
        self._task = self._bar.add_task(name, total=epochs * steps, metrics="")
        self._refreshed = self._started = 0.0
        self._first = 0

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def note(self, line: str) -> None:
        """Show a line; on a terminal it scrolls away above the bar."""
        if self._enabled:
            self.console.print(line, soft_wrap=True)

    def start_epoch(self, step: int) -> None:
        """Start an epoch after its first `step` steps, which were taken before."""
        self._started, self._first = time.monotonic(), step

    def step(self, epoch: int, step: int, logs: dict[str, Any], waited: float) -> None:
        """Move the bar to a step of an epoch (from 0).

        Args:
            epoch: from 0.
            step: steps taken in it.
            logs: running means of the epoch by name.
            waited: seconds of the epoch spent waiting for data.
        """
        if self._bar.disable:
            return
        self._bar.update(self._task, completed=epoch * self._steps + step)
        now = time.monotonic()
        if now - self._refreshed < REFRESH:
            return
        self._refreshed, spent = now, max(now - self._started, 1e-9)
        rates = {
            "images_per_second": (step - self._first) * self._batch_size / spent,
            "data_wait": min(1.0, waited / spent),
        }
        row = {name: float(value) for name, value in logs.items()} | rates
        self._bar.update(self._task, metrics=f"{epoch + 1}/{self._epochs}  {format_metrics(row)}")

    def epoch(self, row: dict[str, Any]) -> None:
        """Show the metrics of an epoch."""
        self.note(f"epoch {row['epoch']}/{self._epochs}  {format_metrics(row)}")


# Formats of metrics; others are numbers with four decimals.
FORMATS: dict[str, Callable[[float], str]] = {
    "images_per_second": lambda value: f"{value:,.0f} examples/s",
    "data_wait": lambda value: f"waits for data {100 * value:.0f}%",
}
HIDDEN = ("epoch", "learning_rate", "seconds")


def format_metrics(row: dict[str, Any]) -> str:
    """Return the metrics of a row as text."""
    known = {name: value for name, value in row.items() if name not in HIDDEN and value is not None}
    return "  ".join(FORMATS[n](v) if n in FORMATS else f"{n} {v:.4f}" for n, v in known.items())
