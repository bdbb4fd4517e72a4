"""Kill commands at random moments: `python benchmarks/kills.py [--kills 50] [--seed 1]`.

Exports, reports and trainings of a small model end by SIGKILL, SIGTERM or SIGHUP, from their start to their end. After
each, no process of the command is left, every artifact and report that is visible is whole, and the message of a
signal that can be handled is one line with its exit code. The same command then succeeds, and nothing temporary is
left.

Each kill is printed in one line; the exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "ZOO_KILLS"  # a variable that all processes of a command inherit
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
SMALL = ("digits_mlp", "--set", "epochs=3", "--set", "schedule.warmup_epochs=0", "--quiet")
# Seconds in which a converter must have ended.
PATIENCE = 5.0


class Failed(Exception):
    """A check that failed, in one line."""


def require(holds: bool, message: str) -> None:
    """Raise Failed if something does not hold."""
    if not holds:
        raise Failed(message)


def start(mark: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a command in a separate process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), MARK: mark}
    command = [sys.executable, "-m", "zoo", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def run(*arguments: object) -> None:
    """Run a command, which must succeed."""
    process = start(uuid.uuid4().hex, *arguments)
    _, err = process.communicate()
    require(process.returncode == 0, f"zoo {' '.join(map(str, arguments))} ended with {process.returncode}: {err}")


def left(mark: str) -> list[int]:
    """Return the processes of a command that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def gone(mark: str) -> bool:
    """Return whether all processes of a command end soon."""
    deadline = time.monotonic() + PATIENCE
    while (found := left(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not found


def check_files(place: Path) -> int:
    """Require that every visible artifact below a run verifies; returns their number."""
    folders = [path for path in (place / "exports").glob("*") if not path.name.startswith(".")]
    for folder in folders:
        run("verify", folder)
    return len(folders)


def temporary(folder: Path) -> list[str]:
    """Return the names of temporary files below a folder."""
    return [path.name for path in folder.rglob(".*") if path.name.startswith((".writing", ".replaced"))]


def kill_once(command: Sequence[object], seconds: float, number: int, folder: Path) -> str:
    """Kill a command after some seconds, check what it leaves, and run what follows; returns what happened."""
    mark = uuid.uuid4().hex
    process = start(mark, *command)
    time.sleep(seconds)
    process.send_signal(number)
    _, err = process.communicate()
    require(gone(mark), f"processes {left(mark)} go on")
    code = process.returncode
    if code not in (0, -number):
        require(code == 128 + number, f"the exit code is {code}: {err}")
        require(len(err.splitlines()) == 1, f"not one line: {err}")
    whole = check_files(folder / "run") if command[0] == "export" else 0
    return f"code {code}, {whole} whole artifacts"


def follow(command: Sequence[object], folder: Path) -> None:
    """Run the command again, as a user does after a kill, and require that nothing temporary is left."""
    trained = folder / "trained"
    if command[0] == "train" and (trained / "recipe.json").is_file():
        command = ("train", "--resume", trained, "--quiet")
    run(*command)
    require(not temporary(folder), f"{temporary(folder)} are left")
    shutil.rmtree(trained, ignore_errors=True)


def measure(commands: dict[str, Sequence[object]]) -> dict[str, float]:
    """Return the seconds that each command takes when nothing ends it."""
    found = {}
    for name, command in commands.items():
        begin = time.monotonic()
        run(*command)
        found[name] = time.monotonic() - begin
    return found


def main(kills: int, seed: int) -> int:
    """Kill commands in turns; returns the exit code."""
    draw, failures, counts = random.Random(seed), 0, collections.Counter()
    # Under nohup it is ignored, and commands keep it so.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run("train", *SMALL, "--run", folder / "run")
        commands = {
            "export": ("export", folder / "run", "--format", "onnx", "tflite_int8"),
            "report": ("report", folder / "run"),
            "train": ("train", *SMALL, "--run", folder / "trained"),
        }
        seconds = measure(commands)
        shutil.rmtree(folder / "trained")
        for turn in range(kills):
            name = list(commands)[turn % len(commands)]
            number, moment = draw.choice(SIGNALS), draw.uniform(0, seconds[name])
            try:
                found = kill_once(commands[name], moment, number, folder)
                follow(commands[name], folder)
            except Failed as error:
                failures, found = failures + 1, f"FAILED: {error}"
            counts[name] += 1
            print(f"{name} {signal.Signals(number).name} after {moment:.1f} s: {found}", flush=True)
    print(f"{kills} kills ({dict(counts)}), seed {seed}: {failures} failed")
    return int(bool(failures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(main(options.kills, options.seed))
