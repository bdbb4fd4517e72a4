"""SIGTERM works while Python cannot handle signals: in a wait for data, a long validation or a step that hangs."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

import training
from training import Run
from training.checkpoints.files import _read
from training.data.dataset import datasets
from training.data.pipeline import pipeline
from training.fit.loop import resume_run

STEPS, BATCH = 40, 32
CHANGES = {
    "data.name": "slow_digits",
    "data.batch_size": BATCH,
    "model.options": {"widths": [16], "dropout": 0.2},
    "epochs": 2,
    "checkpoint_steps": 1,
    "schedule.warmup_epochs": 0,
    "log.every": 0,
    "log.misclassified": 0,
}
# Digits, read again for each epoch. Environment variables set the split, the first slow example and the seconds to
# wait for each.
SLOW = """
import dataclasses, os, sys, time
from training.data.pipeline import pipeline
from training.data.dataset import Split, register_dataset
from training.data.readers.loading import load_dataset
from zoo.common.lazy import tf

pipeline.MEMORY = 0

def slow(name, examples):
    if name != os.environ.get("SLOW_SPLIT"):
        return examples
    first, seconds = int(os.environ["SLOW_FROM"]), float(os.environ["SLOW_SECONDS"])

    def wait(i, example):
        with tf.control_dependencies([tf.py_function(lambda n: time.sleep(seconds if n >= first else 0.0), [i], [])]):
            return tf.nest.map_structure(tf.identity, example)

    return examples.enumerate().map(wait)

def split_of(name, split):
    shuffled = lambda seed, skip, pick=lambda examples: examples: slow(name, pick(split.examples.skip(skip)))
    return Split(slow(name, split.examples), split.count, shuffled)

@register_dataset("slow_digits")
def slow_digits(config):
    found = load_dataset(dataclasses.replace(config, name="digits"))
    return dataclasses.replace(found, splits={n: split_of(n, s) for n, s in found.splits.items()})
"""
COMMAND = SLOW + "from zoo.__main__ import main\nmain(sys.argv[1:])\n"


def when(process, found):
    """Wait until a condition holds."""
    until = time.monotonic() + 120
    while not found():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"It never came: {process.communicate()}")
        time.sleep(0.02)


def place(run):
    """Return the epoch and step of the last checkpoint, (-1, -1) without one."""
    path = run / "checkpoints/last.safetensors"
    if not path.is_file():
        return -1, -1
    progress = _read(path)[1]
    return progress.epoch, progress.step


def stopped(process, run, at):
    """Send SIGTERM a while after a checkpoint at a place, and return how the process ended."""
    when(process, lambda: place(run) == at)
    # Next, it waits for data or validates.
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.fixture
def slow_digits(monkeypatch):
    """The same data in this process, without waits."""
    monkeypatch.setattr(pipeline, "MEMORY", 0)
    space = {"__name__": "slow_digits"}
    exec(SLOW, space)
    yield
    datasets._entries.pop("slow_digits", None)
    datasets._origins.pop("slow_digits", None)


@pytest.mark.slow
def test_run_stopped_twice_ends_like_an_uninterrupted_run(python, tmp_path, slow_digits):
    """A stop in a wait for data and one in validation save everything: the end is equal to the bit."""
    run = tmp_path / "run"
    changes = [f"--set={key}={value}".replace("'", '"') for key, value in CHANGES.items()]
    # The sixth batch and later ones take minutes.
    late = {"SLOW_SPLIT": "train", "SLOW_FROM": str(5 * BATCH), "SLOW_SECONDS": "60"}
    process = python("-c", COMMAND, "train", "digits_mlp", "--run", run, "--quiet", *changes, env=late, warm=True)
    code, out, err = stopped(process, run, (0, 5))
    assert (code, out, err.count("\n")) == (143, "", 1), err
    assert f"after epoch 0, step 5; no progress is lost. Resume with: zoo train --resume {run}" in err
    assert place(run) == (0, 5)
    long = {"SLOW_SPLIT": "validation", "SLOW_FROM": "0", "SLOW_SECONDS": "0.05"}
    process = python("-c", COMMAND, "train", "--resume", run, "--quiet", env=long, warm=True)
    code, out, err = stopped(process, run, (0, STEPS))
    assert (code, out, err.count("\n")) == (143, "", 1), err
    assert f"after epoch 0, step {STEPS}; no progress is lost" in err
    assert Run.open(run).metrics() == []
    again = resume_run(Run.open(run))
    whole = training.train("digits_mlp", CHANGES, run=tmp_path / "whole")
    (ours, _), (theirs, _) = (_read(r.checkpoints / "last.safetensors") for r in (again, whole))
    assert [name for name in theirs if ours[name].tobytes() != theirs[name].tobytes()] == []
    metrics = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
    rows = [[[row[metric] for metric in metrics] for row in found.metrics()] for found in (again, whole)]
    assert rows[0] == rows[1]


HANGS = """
import signal, sys, threading, time
from training.fit import preemption
preemption.TIMEOUT = 3.0
busy = threading.Lock()
busy.acquire()
signal.signal(signal.SIGTERM, lambda *_: None)
with preemption.PreemptionHandler(busy, writing=lambda: False, save=lambda: "saved", describe_loss=lambda: "gave up"):
    print("ready", flush=True)
    if sys.argv[1] == "waits":
        busy.release()
    time.sleep(0 if sys.argv[1] == "hears" else 60)
    sys.stdin.read()
    time.sleep(0.5)
print("over")
"""


@pytest.mark.parametrize(
    ("case", "code", "message"), [("hangs", 143, "zoo: gave up\n"), ("waits", 143, "zoo: saved\n"), ("hears", 0, "")]
)
def test_process_ends_while_its_main_thread_is_blocked(python, case, code, message):
    """The handler abandons a step that hangs, saves in a wait, and leaves training that stops by itself alone."""
    process = python("-c", HANGS, case, stdin=subprocess.PIPE, warm=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (code, message)
    assert out == ("over\n" if case == "hears" else "")
