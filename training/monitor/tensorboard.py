"""Write TensorBoard event files: metrics by epoch, measured steps, histograms, profiles and examples."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from zoo.common.lazy import np, tf

# Keys of a measured step that are no metric.
EXCLUDED = ("step", "epoch", "classes")
# Time, machine, process and number of an event file.
EVENTS = re.compile(r"(events\.out\.tfevents\.\d+)\..+?\.(\d+\.\d+\.v2)")


def _remove_host(folder: Path) -> None:
    """Take the name of this machine out of the names of closed files; TensorFlow always writes it there."""
    for path in folder.glob("*/events.out.tfevents.*"):
        if found := EVENTS.fullmatch(path.name):
            path.rename(path.with_name(f"{found[1]}.{found[2]}"))
    for path in folder.glob(f"*/plugins/profile/*/{platform.node()}.*"):
        path.rename(path.with_name(f"machine{path.name.removeprefix(platform.node())}"))


class TensorBoardWriter:
    """Writes a run's event files.

    Metrics of an epoch go to "train" and "validation", by epoch; measurements of steps go to "steps", by step.

    Args:
        folder: the folder of the files.
        writes: whether this process writes them.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self._folder, self._writes, self._profiling = folder, writes, False
        self._writers: dict[str, Any] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Write the row of an epoch."""
        for key, value in row.items():
            if key != "epoch" and value is not None:
                part = "validation" if key.startswith("val_") else "train"
                with self._writer(part).as_default():
                    tf.summary.scalar(key.removeprefix("val_"), value, step=row["epoch"])

    def step(self, row: dict[str, Any]) -> None:
        """Write the measurements of a step: numbers, and numbers by layer."""
        with self._writer("steps").as_default():
            for key, value in row.items():
                named = {f"{key}/{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
                for tag, number in named.items():
                    if number is not None and tag not in EXCLUDED:
                        tf.summary.scalar(tag, number, step=row["step"])

    def histograms(self, model: Any, epoch: int, every: int) -> None:
        """Write a histogram of every weight if `every` divides an epoch (from 1); 0 for never."""
        if every and epoch % every == 0:
            with self._writer("weights").as_default():
                for variable in model.weights:
                    tf.summary.histogram(variable.path, np.asarray(variable), step=epoch)

    def image(self, name: str, pixels: Any, epoch: int) -> None:
        """Write an image, uint8 (height, width, channels)."""
        with self._writer("validation").as_default():
            tf.summary.image(name, pixels[None], step=epoch)

    def text(self, name: str, content: str, epoch: int) -> None:
        """Write a text in Markdown."""
        with self._writer("validation").as_default():
            tf.summary.text(name, content, step=epoch)

    def profile(self, step: int, bounds: tuple[int, ...]) -> None:
        """Profile the steps from the first to the last of `bounds`; empty for none."""
        if not (bounds and self._writes):
            return
        if step == bounds[0] and not self._profiling:
            tf.profiler.experimental.start(str(self._folder / "train"))
            self._profiling = True
        elif self._profiling and step > bounds[1]:
            tf.profiler.experimental.stop()
            self._profiling = False

    def close(self) -> None:
        """Flush and close the files."""
        if self._profiling:
            tf.profiler.experimental.stop()
            self._profiling = False
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        if self._writes:
            _remove_host(self._folder)

    def _writer(self, part: str) -> Any:
        if part not in self._writers:
            make = tf.summary.create_file_writer if self._writes else lambda _: tf.summary.create_noop_writer()
            self._writers[part] = make(str(self._folder / part))
        return self._writers[part]
