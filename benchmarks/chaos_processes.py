"""Start, watch and end the processes of runs, and read how far a run is."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from chaos_compare import check

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 300


# Started processes with files of their standard errors; a full pipe without a reader would block them.
STARTED: list[tuple[subprocess.Popen, IO[str]]] = []


def zoo(*arguments: Any) -> subprocess.Popen:
    """Start the command in a separate process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "zoo", *map(str, arguments), "--quiet"]
    stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it is closed with the process
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
    STARTED.append((process, stderr))
    return process


def end_all() -> None:
    """Kill all started processes."""
    for process, stderr in STARTED:
        process.kill()
        process.wait()
        stderr.close()
    STARTED.clear()


def start(run: Path, changes: dict[str, Any], *command: Any) -> subprocess.Popen:
    """Start a run, or resume it if it exists, by `zoo train` or another command."""
    command = command or ("train",)
    if (run / "recipe.json").is_file():
        return zoo(*command, "--resume", run)
    pairs = [f"--set={key}={value}" for key, value in changes.items() if key != "recipe"]
    return zoo(*command, changes["recipe"], "--run", run, *pairs)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Wait for the end of a process; return its exit code and its standard error."""
    try:
        process.wait(LONGEST)
    finally:
        process.kill()
    stderr = next(stderr for started, stderr in STARTED if started is process)
    stderr.seek(0)
    return process.returncode, stderr.read()


def whole(run: Path, changes: dict[str, Any], *command: Any) -> None:
    """Train a run to its end."""
    code, stderr = ended(start(run, changes, *command))
    check(code == 0, f"{run} ended with exit code {code}: {stderr}")


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
    """Wait until a condition holds; return False if the process ends before."""
    last = time.monotonic() + LONGEST
    while process.poll() is None:
        if until():
            return True
        check(time.monotonic() < last, "the condition did not hold in time")
        time.sleep(pause)
    return False


def children(pid: int) -> list[int]:
    """Return the running child processes of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return sorted(found)
