"""What is shown while a network learns: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Seconds between two looks at the running figures, which wait for the step on a GPU.
REFRESH = 0.25


class Display:
    """Progress on standard error: a bar on a terminal, lines where there is none.

    Args:
        name: what is trained.
        epochs: in all.
        steps: an epoch.
        batch_size: examples a step.
        wanted: whether anything is shown.
    """

    def __init__(self, name: str, epochs: int, steps: int, batch_size: int, wanted: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._epochs, self._steps, self._batch_size, self._wanted = epochs, steps, batch_size, wanted
        self.console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        self._bar = Progress(*columns, console=self.console, disable=not (wanted and self.console.is_terminal))
        self._task = self._bar.add_task(name, total=epochs * steps, figures="")
        self._looked = self._begun = 0.0
        self._first = 0

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def begin(self, step: int) -> None:
        """Begin an epoch whose first `step` steps were taken before."""
        self._begun, self._first = time.monotonic(), step

    def step(self, epoch: int, step: int, logs: dict[str, Any], waited: float) -> None:
        """Move the bar to a step of an epoch (from 0).

        Args:
            epoch: from 0.
            step: steps taken in it.
            logs: running means of the epoch by name.
            waited: seconds of the epoch that were spent waiting for data.
        """
        if self._bar.disable:
            return
        self._bar.update(self._task, completed=epoch * self._steps + step)
        now = time.monotonic()
        if now - self._looked < REFRESH:
            return
        self._looked, spent = now, max(now - self._begun, 1e-9)
        rates = {
            "images_per_second": (step - self._first) * self._batch_size / spent,
            "data_wait": min(1.0, waited / spent),
        }
        row = {name: float(value) for name, value in logs.items()} | rates
        self._bar.update(self._task, figures=f"{epoch + 1}/{self._epochs}  {figures(row)}")

    def epoch(self, row: dict[str, Any]) -> None:
        """Show the figures of an epoch."""
        line = f"epoch {row['epoch']}/{self._epochs}  {figures(row)}"
        if self._wanted:
            # On a terminal it scrolls away above the bar.
            self.console.print(line, soft_wrap=True)


# How a figure is written; those that are not here are numbers of four decimals.
WRITTEN: dict[str, Callable[[float], str]] = {
    "images_per_second": lambda value: f"{value:,.0f} examples/s",
    "data_wait": lambda value: f"waits for data {100 * value:.0f}%",
}
HIDDEN = ("epoch", "learning_rate", "seconds")


def figures(row: dict[str, Any]) -> str:
    """Return the figures of a row as people read them."""
    known = {name: value for name, value in row.items() if name not in HIDDEN and value is not None}
    return "  ".join(WRITTEN[n](v) if n in WRITTEN else f"{n} {v:.4f}" for n, v in known.items())
