"""Check that training survives failures: `python benchmarks/chaos.py [--kills 30] [--worker-kills 5] [--only PART]`.

kills: a run is killed by -9 at random moments, from start-up to its end, while it writes checkpoints and validates, and
resumed each time. Its weights and metrics equal those of an uninterrupted run, bit for bit.
workers: one of the two processes of a run is killed each time. The weights equal those of an uninterrupted run of two,
bit for bit: a sum of two numbers has no order. The mean training loss of an interrupted epoch may differ by a fraction
of 1e-6: each process sums its own losses, and resumes with half of the sum of both.
disk: the disk of a run fills up. The run stops with one line, and its last checkpoint is intact.
damage: a bit of the newest checkpoint is flipped. The run reports it and resumes from the one before; if both are
damaged, it stops with one line.

Each event is printed in one line; the exit code is 1 if a check fails. Everything runs on CPUs, where TensorFlow is
deterministic.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chaos_compare import Broken, check, same
from chaos_processes import children, end_all, ended, place, start, wait, whole

# Everything with a state: batch normalization, dropout, momentum, EMA, a schedule, augmentation.
CHANGES = {
    "recipe": "digits_resnet",
    "model.name": "resnet_tiny",
    "model.options.dropout": 0.2,
    "epochs": 12,
    "data.batch_size": 64,
    "data.augment.flip": "true",
    "optimizer.ema": 0.9,
    "schedule.warmup_epochs": 1,
    "checkpoint_steps": 3,
    "log.misclassified": 0,
}
# The same for two workers, with fewer epochs: their steps take longer.
TOGETHER = {**CHANGES, "epochs": 6}
STEPS = 1293 // 64
ROUNDING = 1e-6
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Life:
    """A process that trains a run, until it is killed.

    Args:
        run: the run.
        started: when the process started, by the monotonic clock.
        target: number of training steps before the kill, unless it falls into the start-up.
        seconds: seconds after the start of a kill in the start-up.
        late: seconds between the target and the kill.
    """

    run: Path
    started: float
    target: int
    seconds: float
    late: float

    def reached(self, more: int = 0) -> bool:
        """Return whether a checkpoint has the target step, or one so many steps later."""
        epoch, step = place(self.run)
        return epoch * STEPS + step >= self.target + more

    def any_time(self) -> bool:
        """Return whether the target is reached, some time after it is."""
        if self.reached():
            time.sleep(self.late)
        return self.reached()

    def starting(self) -> bool:
        """Return whether the start-up has lasted long enough."""
        return time.monotonic() - self.started > self.seconds

    def writing(self) -> bool:
        """Return whether a checkpoint is being written; some are written faster than this polls."""
        return self.reached() and (any((self.run / "checkpoints").glob(".writing-*")) or self.reached(STEPS))

    def validating(self) -> bool:
        """Return whether the last checkpoint before the validation of an epoch is written."""
        return self.reached() and (place(self.run)[1] > STEPS - CHANGES["checkpoint_steps"] or self.reached(STEPS))


# Moments of a kill: name, relative frequency, and whether the moment has come.
MOMENTS: tuple[tuple[str, int, Callable[[Life], bool]], ...] = (
    ("at any time", 4, Life.any_time),
    ("in start-up", 2, Life.starting),
    ("while a checkpoint is written", 3, Life.writing),
    ("in a validation", 1, Life.validating),
)


def moment(draw: random.Random, run: Path, started: float, target: int) -> tuple[str, Callable[[], bool]]:
    """Draw the moment of a kill; return its name, and a function that returns whether it has come.

    Args:
        draw: the random generator.
        run: the run.
        started: when the process started, by the monotonic clock.
        target: number of training steps before the kill, unless it falls into the start-up.
    """
    ((name, _, come),) = draw.choices(MOMENTS, [often for _, often, _ in MOMENTS])
    late, seconds = draw.random() * 0.3, draw.random() * 8
    life = Life(run, started, target, seconds, late)
    return name, lambda: come(life)


def kill(
    process: subprocess.Popen, run: Path, draw: random.Random, target: int, victim: Callable[[], int] | None = None
) -> str | None:
    """Kill a process, or its victim, at a random moment; return a description, None if the process ended before."""
    started = time.monotonic()
    name, come = moment(draw, run, started, target)
    if not wait(process, come):
        return None
    pid = victim() if victim else process.pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not victim:
        process.wait()
    epoch, step = place(run)
    progress = "before its first checkpoint" if step < 0 else f"with a checkpoint of epoch {epoch}, step {step}"
    return f"{name}, {time.monotonic() - started:.1f} s after its start, {progress}"


def targets(draw: random.Random, count: int, epochs: int) -> list[int]:
    """Return random steps of a training in ascending order."""
    return sorted(draw.randint(0, epochs * STEPS) for _ in range(count))


def kills(
    folder: Path,
    reference: Path,
    log: Log,
    *,
    count: int,
    seed: int,
    changes: dict[str, Any] = CHANGES,
    finish: Callable[[Path, dict[str, Any]], Any] = whole,
) -> None:
    """Kill a run so many times; raise Broken unless it ends like `reference`, a finished run."""
    draw, run = random.Random(seed), folder / "killed"
    for number, target in enumerate(targets(draw, count, changes["epochs"]), start=1):
        process = start(run, changes)
        event = kill(process, run, draw, target)
        code, stderr = (-9, "") if event else ended(process)
        check(event is not None or code == 0, f"a resume ended with exit code {code}: {stderr}")
        log(f"kill {number} of {count}: {event or 'came too late, the run was finished'}")
    finish(run, changes)
    same(run, reference)
    log(f"kills: after {count}, all weights, moments, averages and metrics equal those of an uninterrupted run")


def workers(folder: Path, log: Log, *, count: int, seed: int, changes: dict[str, Any] = TOGETHER) -> None:
    """Kill one of two processes so many times; raise Broken unless the run ends like an uninterrupted one."""
    draw, run, reference = random.Random(seed), folder / "workers", folder / "workers-whole"
    whole(reference, changes, "launch", "--workers", 2)
    process = start(run, changes, "launch", "--workers", 2, "--retries", count)
    for number, target in enumerate(targets(draw, count, changes["epochs"] // 2), start=1):
        wait(process, lambda: len(children(process.pid)) == 2, 0.02)
        victims = children(process.pid)
        event = kill(process, run, draw, target, lambda victims=victims: draw.choice(victims))
        if event is None:
            code, stderr = ended(process)
            raise Broken(f"the launch ended by itself with exit code {code}: {stderr}")
        log(f"kill {number} of {count} of one of two workers: {event}")
        wait(process, lambda victims=victims: not set(victims) & set(children(process.pid)), 0.02)
    code, stderr = ended(process)
    check(code == 0, f"the launch ended with exit code {code}: {stderr}")
    same(run, reference, rounding=ROUNDING)
    log(f"workers: after {count} kills, all weights, moments and averages equal those of an uninterrupted run")


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount a small disk on a folder; yields False where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(folder)], check=True)


def full_disk(folder: Path, reference: Path, log: Log, *, changes: dict[str, Any] = CHANGES) -> None:
    """Fill the disk of a run; raise Broken unless it stops with one line, and resumes from its checkpoint later."""
    disk = folder / "disk"
    with small_disk(disk, 64) as real:
        run, filler = disk / "run", disk / "filler"
        process = start(run, changes)
        check(wait(process, lambda: place(run)[0] >= 2), "the run ended before its disk was full")
        if real:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass
        else:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
        code, stderr = ended(process)
        check((code, stderr.count("\n")) == (2, 1), f"a full disk ended in exit code {code} and: {stderr}")
        check("No space left" in stderr or "File too large" in stderr, f"the error does not name a full disk: {stderr}")
        log(f"disk: {'full' if real else 'as if full (mounting is not allowed here)'}; error: {stderr.strip()}")
        filler.unlink(missing_ok=True)
        whole(run, changes)
        same(run, reference)
    log("disk: with space again, it ends like an uninterrupted run")


def flip(path: Path, place: float) -> None:
    """Flip one bit of a file, at a relative position from 0 to 1."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << 3
    path.write_bytes(content)


def damage(folder: Path, reference: Path, log: Log, *, seed: int, changes: dict[str, Any] = CHANGES) -> None:
    """Damage checkpoints; raise Broken unless the run reports it and resumes, or stops if both are damaged."""
    draw, run = random.Random(seed), folder / "damaged"
    process = start(run, changes)
    check(wait(process, lambda: place(run)[0] >= 1), "the run ended before it could be damaged")
    process.kill()
    process.wait()
    last, previous = (run / f"checkpoints/{name}.safetensors" for name in ("last", "previous"))
    originals = {path: path.read_bytes() for path in (last, previous)}
    for path in originals:
        flip(path, draw.random())
    code, stderr = ended(start(run, changes))
    check((code, stderr.count("\n")) == (2, 1), f"two damaged checkpoints ended in exit code {code} and: {stderr}")
    log(f"damage: a bit of both checkpoints; error: {stderr.strip()}")
    previous.write_bytes(originals[previous])
    code, stderr = ended(start(run, changes))
    check(code == 0 and stderr.count("\n") == 1 and str(previous) in stderr, f"exit code {code}: {stderr}")
    log(f"damage: a bit of the newest; warning: {stderr.strip()}")
    same(run, reference)
    log("damage: it ends like an uninterrupted run")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and print each event; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--worker-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=("kills", "workers", "disk", "damage"))
    asked = parser.parse_args(arguments)
    wanted = asked.only or ("kills", "workers", "disk", "damage")
    log: Log = lambda line: print(line, flush=True)  # noqa: E731
    log(f"seed {asked.seed}; {CHANGES['epochs']} epochs of {STEPS} steps, {TOGETHER['epochs']} of two workers")
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = Path(scratch)
        reference = folder / "whole"
        try:
            if set(wanted) - {"workers"}:
                whole(reference, CHANGES)
                log("the uninterrupted run is finished")
            parts = {
                "kills": lambda: kills(folder, reference, log, count=asked.kills, seed=asked.seed),
                "workers": lambda: workers(folder, log, count=asked.worker_kills, seed=asked.seed),
                "disk": lambda: full_disk(folder, reference, log),
                "damage": lambda: damage(folder, reference, log, seed=asked.seed),
            }
            for name in wanted:
                parts[name]()
        except Broken as broken:
            log(f"BROKEN: {broken}")
            return 1
        finally:
            end_all()
    log("All checks passed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
