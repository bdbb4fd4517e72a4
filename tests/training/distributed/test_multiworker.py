"""Several processes train one model through `zoo train` with TF_CONFIG, as Kubeflow and users start them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time

import pytest

import training
from training import Run

TRAIN = ["train", "digits_resnet"]
SET = ["model.name=resnet_tiny", "epochs=2", "schedule.warmup_epochs=0", "precision=float32", "data.augment={}"]
CHANGES = (*SET, "optimizer.learning_rate=0.01", "strategy=multiworker")
SMALL = [part for change in CHANGES for part in ("--set", change)]
# Seconds after which a process counts as hanging, also on a busy machine.
LONGEST = 600


@pytest.fixture
def workers(python):
    """Start `zoo`, or another command, in the processes of a cluster; returns the Popens, which end with the test."""
    started = []

    def start(count, *arguments, command=("-m", "zoo"), **options):
        sockets = [socket.socket() for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
        for each in sockets:
            each.close()
        for i in range(count):
            task = {"cluster": cluster, "task": {"type": "worker", "index": i}}
            environment = {"TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
            started.append(python(*command, *arguments, env=environment, **options))
        return started[-count:]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ends(processes):
    """Return exit codes, standard outputs and zoo's lines on standard error; none contains a traceback."""
    found = [process.communicate(timeout=LONGEST) for process in processes]
    assert not [err for _, err in found if "Traceback" in err]
    return [p.returncode for p in processes], [out for out, _ in found], [zoo_lines(err) for _, err in found]


def zoo_lines(text):
    """Return zoo's lines of a standard error."""
    return [line for line in text.splitlines() if line.startswith("zoo: ")]


def wait_for_epoch(run, epoch):
    """Wait until a run has finished an epoch."""
    end = time.monotonic() + LONGEST
    while not (run / "metrics.jsonl").is_file() or len(Run.open(run).metrics()) < epoch:
        assert time.monotonic() < end
        time.sleep(0.2)


def assert_lost(codes, err, lost):
    """Check that one of two workers was killed, and that the other reported it in one line and asked for a retry."""
    assert (codes[lost], codes[1 - lost]) == (-signal.SIGKILL, os.EX_TEMPFAIL), err
    assert err[lost] == []
    (line,) = err[1 - lost]
    assert f"Expected all workers to respond. Received: worker {1 - lost} of 2 lost another: " in line
    assert "Start all of them again, with --resume" in line


@pytest.mark.slow
def test_two_workers_train_as_one(workers, tmp_path):
    """Both succeed; the run equals that of one process, with uneven shards in validation; only the chief prints."""
    run = tmp_path / "run"
    codes, out, err = ends(workers(2, *TRAIN, *SMALL, "--quiet", "--run", run))
    assert codes == [0, 0], err
    assert (out[0].startswith(str(run)), out[1]) == (True, "")
    result = Run.open(run).result()
    assert (result["strategy"], result["workers"], result["replicas"]) == ("multiworker", 2, 2)
    assert training.evaluate(run).accuracy == result["test"]["accuracy"]
    assert sorted(p.name for p in run.iterdir() if p.suffix != ".html") == [
        ".lock", "checkpoints", "data.json", "diagnostics.jsonl", "done.json", "env.json", "metrics.jsonl",
        "model.keras", "recipe.json", "tensorboard",
    ]  # fmt: skip
    changes = dict(map(training.parse_override, CHANGES))
    one = training.train("digits_resnet", {**changes, "strategy": "one"}, run=tmp_path / "one")
    for mine, wanted in zip(Run.open(run).metrics(), one.metrics(), strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            assert mine[key] == pytest.approx(wanted[key], rel=1e-3)
    mine, wanted = Run.open(run).diagnostics(), one.diagnostics()
    assert [row["step"] for row in mine] == [row["step"] for row in wanted]
    # Later rows are those of weights that differ in the last digits.
    assert mine[0]["gradient_norm"] == pytest.approx(wanted[0]["gradient_norm"], rel=1e-3)


def two_that_train(workers, run, epochs):
    """Two processes that train a run together, after their first epoch."""
    processes = workers(2, *TRAIN, *SMALL, "--set", f"epochs={epochs}", "--quiet", "--run", run)
    wait_for_epoch(run, 1)
    return processes


def finish(workers, run):
    """Finish a run with two processes."""
    codes, _, err = ends(workers(2, "train", "--resume", run, "--quiet"))
    assert codes == [0, 0], err


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_worker_that_is_asked_to_stop_stops_all(workers, tmp_path, asked):
    """SIGTERM of one ends both after the same step, with 143 and no loss of progress; both resume and succeed."""
    run = tmp_path / "run"
    processes = two_that_train(workers, run, 8)
    processes[asked].send_signal(signal.SIGTERM)
    codes, _, err = ends(processes)
    assert codes == [143, 143], err
    assert err[0] == err[1]
    assert "no progress is lost" in err[0][0]
    before = len(Run.open(run).metrics())
    finish(workers, run)
    assert [row["epoch"] for row in Run.open(run).metrics()] == list(range(1, 9))
    assert before < 8


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_is_killed_ends_all(workers, tmp_path, lost):
    """The others report it in one line and end with the exit code for a retry; all can resume."""
    run = tmp_path / "run"
    processes = two_that_train(workers, run, 6)
    processes[lost].kill()
    codes, _, err = ends(processes)
    assert_lost(codes, err, lost)
    finish(workers, run)


# These digits load once standard input is closed: workers know each other by then, but have no model yet.
WAITS = """
import dataclasses, sys
from training.data.dataset import register_dataset
from training.data.readers.loading import load_dataset
from zoo.__main__ import main

@register_dataset("late_digits")
def late_digits(config):
    print("here", flush=True)
    sys.stdin.read()
    return load_dataset(dataclasses.replace(config, name="digits"))

main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_is_killed_before_they_build_ends_all(workers, tmp_path, lost):
    """The others also report it in one line before there is a run."""
    run = tmp_path / "run"
    late = (*TRAIN, *SMALL, "--set", "data.name=late_digits", "--quiet", "--run", run)
    processes = workers(2, *late, command=("-c", WAITS), stdin=subprocess.PIPE)
    assert [process.stdout.readline() for process in processes] == ["here\n"] * 2
    processes[lost].kill()
    codes, _, err = ends(processes)
    assert_lost(codes, err, lost)
    assert not run.exists()


@pytest.mark.slow
def test_all_refuse_a_directory_that_is_not_free(workers, tmp_path):
    """No worker waits for the others, and nothing is written."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("mine")
    codes, _, err = ends(workers(2, *TRAIN, *SMALL, "--run", tmp_path / "run"))
    assert codes == [2, 2]
    assert all("which contains files" in lines[0] for lines in err)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["file"]
