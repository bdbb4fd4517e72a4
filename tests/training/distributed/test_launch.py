"""`zoo launch`: processes start, get prefixes, stop and restart together, and leave no orphans."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time

import pytest

import training
from training import Run
from training.distributed import launch as launching
from training.distributed.launch import WorkerFailed, launch
from zoo.common.errors import BadOption

PRINT_CONFIG = "import json, os, sys; print(os.environ['TF_CONFIG'], flush=True); print('bad', file=sys.stderr)"
# Worker 1 fails after a while; worker 0 waits, and prints a line when it is asked to end.
ONE_FAILS = """
import json, os, signal, sys, time
def end(*_):
    print("asked", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, {handler})
print(os.getpid(), flush=True)
if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
    time.sleep(0.5)
    {failure}
time.sleep(60)
"""


def worker(code, **parts):
    """Return a function that always returns the same command."""
    for key, value in parts.items():
        code = code.replace("{" + key + "}", value)
    return lambda: [sys.executable, "-c", code]


def alive(pid):
    """Return whether a process runs."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids, seconds=30):
    """Wait until processes are gone; return whether they are."""
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, pids))


def test_workers_know_each_other_and_prefix_their_lines(capsys):
    """Each worker gets the same free addresses and its own number; its lines start with that number."""
    launch(3, worker(PRINT_CONFIG))
    out, err = capsys.readouterr()
    lines = dict(line.split(" ", 1) for line in out.splitlines())
    assert sorted(lines) == ["[0]", "[1]", "[2]"]
    configs = [json.loads(lines[f"[{i}]"]) for i in range(3)]
    assert [each["task"] for each in configs] == [{"type": "worker", "index": i} for i in range(3)]
    assert configs[0]["cluster"] == configs[1]["cluster"] == configs[2]["cluster"]
    addresses = configs[0]["cluster"]["worker"]
    assert len(set(addresses)) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    assert sorted(err.splitlines()) == ["[0] bad", "[1] bad", "[2] bad"]


@pytest.mark.parametrize(
    ("failure", "code", "how"),
    [("sys.exit(7)", 7, "with exit code 7"), ("os.kill(os.getpid(), 9)", 137, r"by signal 9 \(SIGKILL\)")],
)
def test_when_one_fails_all_are_stopped(capsys, failure, code, how):
    """The others are asked to end, the exit code is that of the failed worker, and one line names it."""
    with pytest.raises(WorkerFailed, match=f"^Worker 1 ended {how}, and the others were stopped. Go on$") as error:
        launch(2, worker(ONE_FAILS, handler="end", failure=failure), advice=lambda: "Go on")
    assert error.value.code == code
    lines = capsys.readouterr().out.splitlines()
    assert "[0] asked" in lines
    assert not any(alive(line.split()[1]) for line in lines if line.split()[1].isdigit())


def test_worker_that_ignores_sigterm_is_killed(capsys, monkeypatch):
    """SIGKILL follows after a while."""
    monkeypatch.setattr(launching, "FAILURE_TIMEOUT", 0.3)
    with pytest.raises(WorkerFailed):
        launch(2, worker(ONE_FAILS, handler="signal.SIG_IGN", failure="sys.exit(1)"))
    pids = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert len(pids) == 2
    assert not any(map(alive, pids))


COUNT = """
import json, os, pathlib, sys
mine = pathlib.Path(sys.argv[1], os.environ["TF_CONFIG"][-3:-2])
before = len(mine.read_text()) if mine.exists() else 0
mine.write_text("x" * (before + 1))
sys.exit({code} if before < 2 and mine.name == "0" else 0)
"""


def counting(folder, code):
    """Return a command that fails twice in worker 0, and a function that counts its starts."""
    source = COUNT.replace("{code}", str(code))
    return (
        lambda: [sys.executable, "-c", source, str(folder)],
        lambda: len((folder / "0").read_text()),
    )


def test_all_are_started_again(tmp_path, capsys):
    """Workers restart as often as allowed, with a line each time."""
    command, starts = counting(tmp_path, 5)
    launch(2, command, retries=2)
    assert starts() == 3
    err = capsys.readouterr().err.splitlines()
    how = "zoo: worker 0 ended with exit code 5, and the others were stopped; restarting all"
    assert err == [f"{how} (1 of 2)", f"{how} (2 of 2)"]


def test_not_more_often_than_allowed(tmp_path):
    """The last failure gives the exit code."""
    command, starts = counting(tmp_path, 5)
    with pytest.raises(WorkerFailed) as error:
        launch(2, command, retries=1)
    assert (error.value.code, starts()) == (5, 2)


def test_what_is_refused_is_not_tried_again(tmp_path):
    """Exit code 2 reports a problem that a restart does not fix."""
    command, starts = counting(tmp_path, 2)
    with pytest.raises(WorkerFailed) as error:
        launch(2, command, retries=5)
    assert (error.value.code, starts()) == (2, 1)


LAUNCHER = """
import sys
from training.common.stopping import Stopped
from training.distributed.launch import launch
try:
    launch(2, lambda: [sys.executable, "-c", sys.argv[1]], retries=3)
except Stopped as stopped:
    print(stopped)
    sys.exit(stopped.code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_worker_outlives_its_launcher(python, number, code):
    """A signal is passed on once, and nothing restarts; kill -9 of the launcher also ends its workers."""
    process = python("-c", LAUNCHER, ONE_FAILS.replace("{handler}", "end").replace("{failure}", "time.sleep(60)"))
    pids = [process.stdout.readline().split()[1] for _ in range(2)]
    assert all(map(alive, pids))
    process.send_signal(number)
    with contextlib.suppress(ProcessLookupError):
        out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert gone(pids)
    if number == signal.SIGTERM:
        assert sorted(out.splitlines()) == ["Stopped all workers.", "[0] asked", "[1] asked"]


@pytest.mark.parametrize(("workers", "retries"), [(0, 0), (65, 0), (2, -1)])
def test_numbers_that_cannot_be_are_refused(workers, retries):
    """There is at least one worker, and retries are not negative."""
    with pytest.raises(BadOption, match="workers must be from 1 to 64"):
        launch(workers, worker(PRINT_CONFIG), retries=retries)


def test_command_refuses_before_it_starts_anything(tmp_path, zoo_command, digits_run):
    """One line refuses no recipe, two, an unknown one, an existing folder and another strategy."""
    (tmp_path / "notes.txt").write_text("mine")
    cases = {
        "either RECIPE": [],
        "Expected --resume alone": ["--resume", tmp_path, "--set", "epochs=3"],
        "Did you mean 'digits_mlp'": ["digit_mlp"],
        "empty or missing folder for a new run": ["digits_mlp", "--run", tmp_path],
        "Expected a run directory": ["--resume", tmp_path],
        "workers must be": ["digits_mlp", "--workers", "0", "--run", tmp_path / "new"],
    }
    for message, arguments in cases.items():
        code, out, err = zoo_command("launch", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments
        assert message in err
    one = Run.create(training.get_recipe("digits_mlp").override(strategy="one"), tmp_path / "one")
    code, out, err = zoo_command("launch", "--resume", one.path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"zoo train --resume {one.path}" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "one"]
