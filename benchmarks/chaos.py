"""What training survives: `python benchmarks/chaos.py [--kills 30] [--worker-kills 5] [--seed 1] [--only PART ...]`.

kills: a run is killed by -9 at random moments, from its start-up to its end, while it writes checkpoints and validates,
and gone on with each time. It ends with the weights of a run that was never stopped, to the bit, and its figures.
workers: so is a run of two processes, one of which is killed each time. Its weights are those of two that were left
alone, to the bit as well: a sum of two numbers has no order. Of an epoch that was cut, the mean loss in training may be
1e-6 of it apart: each process adds up losses of its own, and goes on with half of what both had.
disk: it runs on a disk that fills up, and stops in one line with its last checkpoint whole.
damage: a byte of its newest checkpoint is flipped. It says so and goes on from the one before; if both are damaged, it
refuses in one line.

Each event is told in a line; exit code 1 if anything is not as it should be. Everything happens on processors,
where TensorFlow's results do not change from one time to the next.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
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
from typing import IO, Any

from chaos_compare import Broken, check, same

ROOT = Path(__file__).resolve().parent.parent
# All that has a state: batch normalization, dropout, momentum, a mean of weights, a schedule, augmentation.
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
    "log.mistakes": 0,
}
# The same by two workers, whose steps take longer.
TOGETHER = {**CHANGES, "epochs": 6}
STEPS = 1293 // 64
ROUNDING = 1e-6
LONGEST = 300
Tell = Callable[[str], None]


# What was started, with what it says on standard error; a pipe that nobody reads would stop it once it is full.
STARTED: list[tuple[subprocess.Popen, IO[str]]] = []


def zoo(*arguments: Any) -> subprocess.Popen:
    """Start the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "zoo", *map(str, arguments), "--quiet"]
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it is closed with the process
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=said)
    STARTED.append((process, said))
    return process


def end_all() -> None:
    """End what was started and still runs."""
    for process, said in STARTED:
        process.kill()
        process.wait()
        said.close()
    STARTED.clear()


def start(run: Path, changes: dict[str, Any], *command: Any) -> subprocess.Popen:
    """Begin a run, or go on with it once it is there; by `zoo train` or another command."""
    command = command or ("train",)
    if (run / "recipe.json").is_file():
        return zoo(*command, "--resume", run)
    pairs = [f"--set={key}={value}" for key, value in changes.items() if key != "recipe"]
    return zoo(*command, changes["recipe"], "--run", run, *pairs)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Wait for the end of a process; return its code and what it said on standard error."""
    try:
        process.wait(LONGEST)
    finally:
        process.kill()
    said = next(said for started, said in STARTED if started is process)
    said.seek(0)
    return process.returncode, said.read()


def whole(run: Path, changes: dict[str, Any], *command: Any) -> None:
    """Train a run to its end."""
    code, said = ended(start(run, changes, *command))
    check(code == 0, f"{run} ended with exit code {code}: {said}")


def place(run: Path) -> tuple[int, int]:
    """Return the epoch and the step of the last checkpoint, (0, -1) before there is one."""
    from safetensors import SafetensorError, safe_open

    with (
        contextlib.suppress(SafetensorError, OSError),
        safe_open(run / "checkpoints/last.safetensors", "numpy") as file,
    ):
        progress = json.loads(file.metadata()["progress"])
        return progress["epoch"], progress["step"]
    return 0, -1


def wait(process: subprocess.Popen, until: Callable[[], bool], pause: float = 0.002) -> bool:
    """Wait until something is so; tell whether it was before the process ended."""
    last = time.monotonic() + LONGEST
    while process.poll() is None:
        if until():
            return True
        check(time.monotonic() < last, "nothing happens any more")
        time.sleep(pause)
    return False


@dataclasses.dataclass(frozen=True)
class Life:
    """A process that trains a run and is to be killed.

    Args:
        run: the run.
        begun: when the process began, by the monotonic clock.
        target: steps of the whole training that are to be behind it, unless it is killed in its start-up.
        seconds: how long its start-up may last before it is killed there.
        late: how many seconds after its target it may be killed.
    """

    run: Path
    begun: float
    target: int
    seconds: float
    late: float

    def reached(self, more: int = 0) -> bool:
        """Tell whether the target, or so many steps more, are in a checkpoint."""
        epoch, step = place(self.run)
        return epoch * STEPS + step >= self.target + more

    def any_time(self) -> bool:
        """Tell whether the target is reached, a while after it is."""
        if self.reached():
            time.sleep(self.late)
        return self.reached()

    def starting(self) -> bool:
        """Tell whether the start-up has lasted long enough."""
        return time.monotonic() - self.begun > self.seconds

    def writing(self) -> bool:
        """Tell whether a checkpoint is being written; some are written faster than they are looked for."""
        return self.reached() and (any((self.run / "checkpoints").glob(".writing-*")) or self.reached(STEPS))

    def validating(self) -> bool:
        """Tell whether no other checkpoint of an epoch comes before its validation."""
        return self.reached() and (place(self.run)[1] > STEPS - CHANGES["checkpoint_steps"] or self.reached(STEPS))


# Where a kill falls: what it is called, how often it is drawn, and what tells that it has come.
MOMENTS: tuple[tuple[str, int, Callable[[Life], bool]], ...] = (
    ("at any time", 4, Life.any_time),
    ("in start-up", 2, Life.starting),
    ("while a checkpoint is written", 3, Life.writing),
    ("in a validation", 1, Life.validating),
)


def moment(draw: random.Random, run: Path, begun: float, target: int) -> tuple[str, Callable[[], bool]]:
    """Draw a moment of a run's process that began just now; return its name and what tells that it has come.

    Args:
        draw: where it is drawn from.
        run: the run.
        begun: when the process began, by the monotonic clock.
        target: steps of the whole training that are to be behind it, unless it falls into the start-up.
    """
    ((name, _, come),) = draw.choices(MOMENTS, [often for _, often, _ in MOMENTS])
    late, seconds = draw.random() * 0.3, draw.random() * 8
    life = Life(run, begun, target, seconds, late)
    return name, lambda: come(life)


def kill(
    process: subprocess.Popen, run: Path, draw: random.Random, target: int, victim: Callable[[], int] | None = None
) -> str | None:
    """Kill a process, or who it names, at a random moment; return a line that tells of it, None if it came too late."""
    begun = time.monotonic()
    name, come = moment(draw, run, begun, target)
    if not wait(process, come):
        return None
    pid = victim() if victim else process.pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not victim:
        process.wait()
    epoch, step = place(run)
    stands = "before its first checkpoint" if step < 0 else f"with a checkpoint of epoch {epoch}, step {step}"
    return f"{name}, {time.monotonic() - begun:.1f} s after its start, {stands}"


def targets(draw: random.Random, count: int, epochs: int) -> list[int]:
    """Return steps of a whole training, spread at random, in order; the last may be its end."""
    return sorted(draw.randint(0, epochs * STEPS) for _ in range(count))


def kills(
    folder: Path,
    reference: Path,
    tell: Tell,
    *,
    count: int,
    seed: int,
    changes: dict[str, Any] = CHANGES,
    finish: Callable[[Path, dict[str, Any]], Any] = whole,
) -> None:
    """Kill a run so many times; raise Broken unless it ends as `reference`, which is finished, did."""
    draw, run = random.Random(seed), folder / "killed"
    for number, target in enumerate(targets(draw, count, changes["epochs"]), start=1):
        process = start(run, changes)
        told = kill(process, run, draw, target)
        code, said = (-9, "") if told else ended(process)
        check(told is not None or code == 0, f"a resume ended with exit code {code}: {said}")
        tell(f"kill {number} of {count}: {told or 'came too late, the run was through'}")
    finish(run, changes)
    same(run, reference)
    tell(f"kills: after {count}, all weights, moments, averages and figures are those of a run that was never stopped")


def workers(folder: Path, tell: Tell, *, count: int, seed: int, changes: dict[str, Any] = TOGETHER) -> None:
    """Kill one of two processes so many times; raise Broken unless it ends as with none killed."""
    draw, run, reference = random.Random(seed), folder / "workers", folder / "workers-whole"
    whole(reference, changes, "launch", "--workers", 2)
    process = start(run, changes, "launch", "--workers", 2, "--retries", count)
    for number, target in enumerate(targets(draw, count, changes["epochs"] // 2), start=1):
        wait(process, lambda: len(children(process.pid)) == 2, 0.02)
        victims = children(process.pid)
        told = kill(process, run, draw, target, lambda victims=victims: draw.choice(victims))
        if told is None:
            code, said = ended(process)
            raise Broken(f"the launch ended by itself with exit code {code}: {said}")
        tell(f"kill {number} of {count} of one of two workers: {told}")
        wait(process, lambda victims=victims: not set(victims) & set(children(process.pid)), 0.02)
    code, said = ended(process)
    check(code == 0, f"the launch ended with exit code {code}: {said}")
    same(run, reference, rounding=ROUNDING)
    tell(f"workers: after {count} kills, all weights, moments and averages are those of two that were left alone")


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return sorted(found)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Make a folder a disk of its own; False where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(folder)], check=True)


def full_disk(folder: Path, reference: Path, tell: Tell, *, changes: dict[str, Any] = CHANGES) -> None:
    """Fill the disk of a run; raise Broken unless it stops in a line, keeps its checkpoint, and goes on later."""
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
        code, said = ended(process)
        check((code, said.count("\n")) == (2, 1), f"a full disk ended in exit code {code} and: {said}")
        check("No space left" in said or "File too large" in said, f"a full disk is not named: {said}")
        tell(f"disk: {'full' if real else 'as if full (mounting is not allowed here)'}; it said: {said.strip()}")
        filler.unlink(missing_ok=True)
        whole(run, changes)
        same(run, reference)
    tell("disk: with room again, it ended as if nothing had been")


def flip(path: Path, place: float) -> None:
    """Change one bit of a file, somewhere from its beginning (0) to its end (1)."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << 3
    path.write_bytes(content)


def damage(folder: Path, reference: Path, tell: Tell, *, seed: int, changes: dict[str, Any] = CHANGES) -> None:
    """Damage checkpoints; raise Broken unless that is found, said, and gone on from, or refused."""
    draw, run = random.Random(seed), folder / "damaged"
    process = start(run, changes)
    check(wait(process, lambda: place(run)[0] >= 1), "the run ended before it could be damaged")
    process.kill()
    process.wait()
    last, previous = (run / f"checkpoints/{name}.safetensors" for name in ("last", "previous"))
    kept = {path: path.read_bytes() for path in (last, previous)}
    for path in kept:
        flip(path, draw.random())
    code, said = ended(start(run, changes))
    check((code, said.count("\n")) == (2, 1), f"two damaged checkpoints ended in exit code {code} and: {said}")
    tell(f"damage: a bit of both checkpoints; it said: {said.strip()}")
    previous.write_bytes(kept[previous])
    code, said = ended(start(run, changes))
    check(code == 0 and said.count("\n") == 1 and str(previous) in said, f"exit code {code}: {said}")
    tell(f"damage: a bit of the newest; it said: {said.strip()}")
    same(run, reference)
    tell("damage: it ended as if nothing had been")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do it all and tell of it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--worker-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=("kills", "workers", "disk", "damage"))
    asked = parser.parse_args(arguments)
    wanted = asked.only or ("kills", "workers", "disk", "damage")
    tell: Tell = lambda line: print(line, flush=True)  # noqa: E731
    tell(f"seed {asked.seed}; {CHANGES['epochs']} epochs of {STEPS} steps, {TOGETHER['epochs']} of two workers")
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = Path(scratch)
        reference = folder / "whole"
        try:
            if set(wanted) - {"workers"}:
                whole(reference, CHANGES)
                tell("a run that is never stopped is through")
            parts = {
                "kills": lambda: kills(folder, reference, tell, count=asked.kills, seed=asked.seed),
                "workers": lambda: workers(folder, tell, count=asked.worker_kills, seed=asked.seed),
                "disk": lambda: full_disk(folder, reference, tell),
                "damage": lambda: damage(folder, reference, tell, seed=asked.seed),
            }
            for name in wanted:
                parts[name]()
        except Broken as broken:
            tell(f"BROKEN: {broken}")
            return 1
        finally:
            end_all()
    tell("all as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
