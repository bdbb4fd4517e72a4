"""Check that training does not depend on the number of devices: `python benchmarks/invariance.py [--cases A,B]`.

Each case is trained for 20 steps in float32 on one device, on 2 and 4 logical CPUs of one process, and by 2 and 4
processes on this machine, with the same global batches from the same seed. These are compared with one device, over
all steps and tensors: the loss of each step before its update, |a - b| / |b|; each final weight, running mean and EMA,
max |a - b| / max |b| over the tensor; and the metrics of the validation split, which ends with a partial batch. The
exit code is 1 if one of them exceeds ALLOWED. Controls leave something out, and must exceed it: batch normalization
over all replicas, clipping after the sum of gradients, and the rows of a batch that a replica augments.

Sums over several devices differ in their last digits, so that the models have a smooth activation, SiLU: its slope is
continuous. The slope of ReLU jumps from 0 to 1 at 0, and rounding decides for inputs close to 0. A case with ReLU is
shown next to one device with initial weights perturbed by 1e-7, which differs from itself as much; it is for
information. Max pooling passes the gradient to the largest value of a window, and rounding decides between two close
values. The case with max pooling uses average pooling instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ALLOWED, STEPS = 1e-4, 20
NOISE = 1e-7
LIMIT = 600.0
PLAIN = {"precision": "float32", "data.batch_size": 64, "log.every": 0, "epochs": 4, "schedule.warmup_epochs": 0}
RESNET = {
    "model.name": "resnet_tiny",
    "model.options": {"activation": "silu"},
    "data.augment": {},
    "optimizer.learning_rate": 0.01,
    **PLAIN,
}
CLIPPED = {**RESNET, "optimizer.clip_norm": 0.5}
ADAMW = {"name": "adamw", "weight_decay": 0.1, "learning_rate": 1e-3}
MIXED = {"flip": True, "rotate": 10, "brightness": 0.2, "noise": 0.02, "erase": 0.3, "mixup": 0.2, "cutmix": 1.0}
# Each replica draws its own dropout masks, so that there is no dropout.
HEADS = {
    **RESNET,
    "model.name": "inception_tiny",
    "model.options": {"activation": "silu", "auxiliary": True, "dropout": 0.0},
    "loss.heads": {"auxiliary": 0.3},
}


class Case(NamedTuple):
    """A recipe, its overrides, whether a teacher is distilled, and whether average pooling replaces max pooling."""

    recipe: str
    changes: dict[str, Any]
    distilled: bool = False
    averages: bool = False


# By their main feature.
CASES = {
    "perceptron": Case("digits_mlp", {**PLAIN, "model.options": {"widths": [32]}}),
    "batch norm": Case("digits_resnet", RESNET),
    "label smoothing": Case("digits_resnet", {**RESNET, "loss.label_smoothing": 0.1}),
    "clipping": Case("digits_resnet", CLIPPED),
    "accumulation": Case("digits_resnet", {**CLIPPED, "optimizer.accumulate": 4, "loss.label_smoothing": 0.1}),
    "running mean": Case("digits_resnet", {**RESNET, "optimizer.ema": 0.99, "optimizer.accumulate": 2}),
    "adamw": Case("digits_resnet", {**CLIPPED, "optimizer": ADAMW}),
    "regularizers": Case("digits_resnet", {**RESNET, "regularize.l1": 1e-5, "regularize.l2": 1e-4}),
    "mixed images": Case("digits_resnet", {**RESNET, "data.augment": MIXED}),
    "mixed in the step": Case("digits_resnet", {**RESNET, "data.augment": {**MIXED, "place": "device"}}),
    # One of the 49,664 max-pooling windows in the first step has two values that differ by 2e-7 of the largest. Fused
    # batch normalization on one device selects one of them, float64 and separate operations the other: gradients
    # differ from float64 by up to 3e-2, and by 3e-5 where float64 selects the same one.
    "auxiliary heads": Case("digits_inception", HEADS, averages=True),
    "teacher": Case("digits_resnet", RESNET, distilled=True),
    "tokens": Case("word_roles_tagger", {**PLAIN, "optimizer.learning_rate": 1e-4}),
    "ReLU": Case("digits_resnet", {**CLIPPED, "model.options": {}}),
}
# Cases for information, shown next to one device with perturbed weights.
SHOWN = ("ReLU",)
# Controls: left out in the first of these cases, and must exceed ALLOWED.
CONTROLS = {
    "norm": ("batch norm", "accumulation"),
    "clip": ("clipping",),
    "rows": ("mixed in the step",),
}
SHORT = ("accumulation",)
# For scale: one device with perturbed weights.
PERTURBED = "perturbed"
# Replicas of a process and processes.
HOWS = {"2 replicas": (2, 1), "4 replicas": (4, 1), "2 workers": (1, 2), "4 workers": (1, 4)}
# Default cases of each setup: all cases in all setups take some twenty minutes.
CHOSEN = {
    "2 replicas": tuple(CASES),
    "4 replicas": ("batch norm", "clipping", "accumulation", "running mean", "mixed images"),
    "2 workers": ("accumulation", "running mean", "adamw", "mixed images", "teacher"),
    "4 workers": ("accumulation",),
}


def train(name: str, replicas: int, multiworker: bool, teacher: str, noise: bool = False) -> dict[str, Any]:
    """Train a case in this process; return its losses, weights and metrics.

    Args:
        name: the case.
        replicas: devices of this process.
        multiworker: as one of a cluster.
        teacher: the run of the teacher, "" for none.
        noise: perturb the initial weights.
    """
    import training
    from training.fit.prepare import prepare
    from training.optim.ema import averaged_weights
    from training.recipe.recipe import resolve

    case = CASES[name]
    strategy = "multiworker" if multiworker else "mirrored" if replicas > 1 else "one"
    changes = {**case.changes, "strategy": strategy, "replicas": 0 if multiworker else replicas}
    if case.distilled:
        changes["teacher"] = {"run": teacher}
    with averaging() if case.averages else contextlib.nullcontext():
        device, pipeline, model, _ = prepare(resolve(training.get_recipe(case.recipe), changes.items()))
    if noise:
        perturb(model)
    losses: list[float] = []
    with device.running():
        for epoch in range(-(-STEPS // pipeline.steps_per_epoch)):
            device.fit(model, pipeline, epoch, 0, [_listen(losses)])
        with averaged_weights(model):
            means = [v.numpy() for v in model.weights]
        metrics = device.evaluate(model, pipeline, "validation")
    weights = [v.numpy() for v in model.weights if "seed" not in v.path]
    return {"losses": losses, "weights": weights, "means": means if changes.get("optimizer.ema") else [], **metrics}


def perturb(model: Any) -> None:
    """Change each weight by about the size of a rounding error."""
    import numpy as np

    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        value = variable.numpy()
        variable.assign((value * (1 + NOISE * random.standard_normal(value.shape))).astype("float32"))


def _listen(losses: list[float]) -> Any:
    """Return a Keras callback that adds the loss of each single batch to a list."""
    import keras

    class Listen(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.reset_metrics()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            losses.append(float(logs["loss"]))

    return Listen()


@contextlib.contextmanager
def without(what: str) -> Iterator[None]:
    """Leave out something that several replicas need."""
    import training.distributed.replicated as replicated
    import training.learning.build as build
    import zoo.layers.core

    owner, name, instead = {
        "": (replicated, "REQUESTS", replicated.REQUESTS),
        "noise": (replicated, "REQUESTS", replicated.REQUESTS),
        "norm": (zoo.layers.normalization, "shared_batch", lambda: False),
        "clip": (replicated, "sum_gradients_first", lambda cls: cls),
        "rows": (build, "draw_for_batch", lambda *_: contextlib.nullcontext()),
    }[what]
    with replaced(owner, name, instead):
        yield


def averaging() -> contextlib.AbstractContextManager[None]:
    """Build models with average pooling instead of max pooling."""
    import keras

    return replaced(keras.layers, "MaxPooling2D", keras.layers.AveragePooling2D)


@contextlib.contextmanager
def replaced(owner: Any, name: str, instead: Any) -> Iterator[None]:
    """Replace an attribute inside the context."""
    before = getattr(owner, name)
    setattr(owner, name, instead)
    try:
        yield
    finally:
        setattr(owner, name, before)


def child(job: dict[str, Any]) -> None:
    """Train cases in this process, and write the results."""
    import numpy as np

    for name, count, what, path in job["cases"]:
        with without(what):
            found = train(name, count, job["multiworker"], job["teacher"], what == "noise")
        if int(os.environ.get("WORKER", "0")) == 0:
            flat = {k: v for k, v in found.items() if k not in ("weights", "means")}
            flat |= {f"{kind}/{i}": w for kind in ("weights", "means") for i, w in enumerate(found[kind])}
            np.savez(path, **flat)


def start(cases: Sequence[tuple[str, int, str, str]], workers: int, teacher: str) -> None:
    """Train cases in one process or in a cluster; raises ArithmeticError if one fails.

    Args:
        cases: name, replicas, what is left out, and the file for the results.
        workers: processes.
        teacher: the run of the teacher, "" for none.
    """
    ports = free_ports(workers)
    job = json.dumps({"cases": list(cases), "multiworker": workers > 1, "teacher": teacher})
    children = []
    for i in range(workers):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "WORKER": str(i)}
        if workers > 1:
            cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})
        command = [sys.executable, __file__, "--child", job]
        children.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    try:
        errors = [process.communicate(timeout=LIMIT)[1].decode()[-3000:] for process in children]
    finally:
        for process in children:
            process.kill()
    for process, error in zip(children, errors, strict=True):
        if process.returncode:
            raise ArithmeticError(f"A process ended with {process.returncode}:\n{error}")


def free_ports(count: int) -> list[int]:
    """Return free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def compare(one: Any, many: Any) -> dict[str, float]:
    """Return the largest relative differences of losses, weights and validation metrics."""
    import numpy as np

    def apart(a: Any, b: Any) -> float:
        return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-12)) if np.size(a) else 0.0

    parts = [name for name in one if "/" in name]
    metrics = [name for name in one if "/" not in name and name != "losses"]
    losses, wanted = many["losses"], one["losses"]
    return {
        "losses": float(np.max(np.abs(losses - wanted) / np.abs(wanted))),
        "weights": max(apart(many[name], one[name]) for name in parts),
        "metrics": max(apart(many[name], one[name]) for name in metrics),
    }


def measure(pairs: Mapping[str, Sequence[str]], folder: Path, noise: bool) -> list[dict[str, Any]]:
    """Return a row for each case and setup, controls last.

    Args:
        pairs: the cases of each setup.
        folder: for the results.
        noise: also compute every case on one device with perturbed weights.
    """
    names = [name for name in CASES if any(name in of for of in pairs.values())]
    controls = _controls(pairs.get("2 replicas", ()))
    perturbed = [name for name in names if noise or name in SHOWN]
    _compute(names, {**pairs, PERTURBED: perturbed}, controls, folder)
    rows = []
    for name in names:
        seen = [how for how in (*HOWS, PERTURBED) if name in {**pairs, PERTURBED: perturbed}.get(how, ())]
        rows += [{"case": name, "how": how, **_compared(folder, name, how)} for how in seen]
    rows += [
        {"case": name, "how": "2 replicas", "without": what, **_compared(folder, name, "2 replicas", what)}
        for what, name in controls.items()
    ]
    for row in rows:
        row["ok"] = row["how"] == PERTURBED or row["case"] in SHOWN or _exceeds(row) == ("without" in row)
    return rows


def _controls(names: Sequence[str]) -> dict[str, str]:
    """Return the case of each control."""
    wanted = {what: [name for name in of if name in names] for what, of in CONTROLS.items()}
    return {what: found[0] for what, found in wanted.items() if found}


def _compute(names: Sequence[str], pairs: Mapping[str, Sequence[str]], controls: dict[str, str], folder: Path) -> None:
    """Train everything: one child process for all single-process cases, one cluster for each setup."""
    teacher = _teacher(folder) if any(CASES[name].distilled for name in names) else ""
    # The largest number of logical CPUs first: a process cannot split its CPU twice.
    local = [(name, 4, "", _path(folder, name, "4 replicas")) for name in pairs.get("4 replicas", ())]
    local += [(name, 2, "", _path(folder, name, "2 replicas")) for name in pairs.get("2 replicas", ())]
    local += [(name, 2, what, _path(folder, name, "2 replicas", what)) for what, name in controls.items()]
    local += [(name, 1, "noise", _path(folder, name, PERTURBED)) for name in pairs[PERTURBED]]
    start([*local, *((name, 1, "", _path(folder, name, "one")) for name in names)], 1, teacher)
    for how, of in pairs.items():
        if of and HOWS.get(how, (1, 1))[1] > 1:
            start([(name, 1, "", _path(folder, name, how)) for name in of], HOWS[how][1], teacher)


def _path(folder: Path, name: str, how: str, what: str = "") -> str:
    return str(folder / f"{name}-{how}-{what}.npz")


def _compared(folder: Path, name: str, how: str, what: str = "") -> dict[str, float]:
    import numpy as np

    return compare(dict(np.load(_path(folder, name, "one"))), dict(np.load(_path(folder, name, how, what))))


def _exceeds(row: dict[str, Any]) -> bool:
    # NaN is not below the limit.
    return not all(row[key] <= ALLOWED for key in ("losses", "weights", "metrics"))


def _teacher(folder: Path) -> str:
    """Train a small teacher; return its run."""
    run = folder / "teacher"
    changes = ["model.name=resnet_tiny", "epochs=1", "schedule.warmup_epochs=0", "strategy=one"]
    options = [part for change in changes for part in ("--set", change)]
    command = [sys.executable, "-m", "zoo", "train", "digits_resnet", "--quiet", "--run", str(run), *options]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return str(run)


def main() -> int:
    """Compare, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated names, or 'short'")
    parser.add_argument("--hows", help=f"comma-separated names of {', '.join(HOWS)}; a selection by default")
    parser.add_argument("--noise", action="store_true", help="also one device with weights perturbed by 1e-7")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each row")
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return 0
    names = SHORT if options.cases == "short" else options.cases.split(",")
    if options.hows:
        pairs = dict.fromkeys(options.hows.split(","), names)
    else:
        pairs = {how: [name for name in of if name in names] for how, of in CHOSEN.items()}
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(pairs, Path(folder), options.noise)
    if options.json:
        print("\n".join(map(json.dumps, rows)))
    else:
        print(f"{'case':<20}{'how':<12}{'losses':>10}{'weights':>10}{'metrics':>10}  allowed {ALLOWED:g}")
    for row in () if options.json else rows:
        left_out = f", without {row['without']}: must exceed it" if row.get("without") else ""
        verdict = "shown" if row["case"] in SHOWN or row["how"] == PERTURBED else "ok" if row["ok"] else "FAILED"
        text = "".join(f"{row[key]:>10.1e}" for key in ("losses", "weights", "metrics"))
        print(f"{row['case']:<20}{row['how']:<12}{text}  {verdict}{left_out}")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
