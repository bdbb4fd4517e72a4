"""What ails a run, told from what it stored: its figures by epoch, its measured steps, and its confusion matrix.

Every check needs a symptom that a healthy run does not have; a figure that is merely unusual is no finding.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from training.runs.run import Run
from zoo.common.errors import RunError

# Share of the largest gradient below which a layer learns nothing beside the others.
VANISHED = 1e-4
# Times the first gradient norm.
EXPLODED = 100.0
# Of units that are 0 for a whole batch, and of values at the ends of their range.
DEAD, SATURATED = 0.7, 0.7
# |update| / |weight| of a step: usual is 1e-3; beyond the outer bounds it needs no other symptom.
SLOW, FAST, WILD = 1e-4, 1e-2, 0.2
# Share of time spent waiting for data.
STARVED = 0.2
# Training accuracy above validation accuracy.
GAP = 0.15
# Times its best that a validation loss may end at while the training loss falls.
RISEN = 1.3
# Of the cross-entropy of guessing.
GUESSING = 0.6
# Examples that a class needs before it counts that it is never predicted; times the rarest class.
FEW, IMBALANCED = 5, 10


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        fault: its name, for machines.
        what: what is wrong, with figures, in one sentence.
        advice: what to try.
        figures: the figures, JSON-safe.
    """

    fault: str
    what: str
    advice: str
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON-safe values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is known of a run.

    Args:
        rows: figures of each epoch.
        steps: what was measured, without failures.
        failures: why training could not go on, each time it could not.
        confusion: of the split that was judged, if it was.
        labels: names of the classes, if known.
    """

    rows: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    confusion: list[list[int]] | None
    labels: list[str]

    @property
    def guess(self) -> float:
        """Cross-entropy of guessing, 0 where there are no classes."""
        counts = [step["classes"] for step in self.steps if step.get("classes")]
        return math.log(counts[-1]) if counts else 0.0

    def at_peak(self) -> list[dict[str, Any]]:
        """Return the measured steps whose learning rate is at least half of the highest."""
        rates = [step["learning_rate"] for step in self.steps]
        return [step for step in self.steps if step["learning_rate"] >= 0.5 * max(rates) > 0] if rates else []


def examine(run: Run) -> dict[str, Any]:
    """Look for what is wrong with a run, finished or not.

    Returns:
        run, finished, epochs, measurements (how many steps were measured), and findings, the gravest first.

    Raises:
        RunError: the run has stored nothing yet.
    """
    evidence = _gather(run)
    if not (evidence.rows or evidence.steps or evidence.failures):
        raise RunError(f"Expected a run that has trained. Received: {run.path}, which has neither figures nor steps.")
    findings = [finding for check in CHECKS for finding in check(evidence)]
    return {
        "run": str(run.path),
        "finished": run.finished,
        "epochs": len(evidence.rows),
        "measurements": len(evidence.steps),
        "findings": [finding.to_json() for finding in findings],
    }


def _gather(run: Run) -> Evidence:
    result, stored = run.result() if run.finished else {}, run.diagnostics()
    return Evidence(
        run.metrics(),
        [row for row in stored if "gradients" in row],
        [row for row in stored if "failed" in row],
        (result.get("test") or {}).get("confusion"),
        result.get("labels") or [],
    )


def _diverged(evidence: Evidence) -> Iterator[Finding]:
    advice = "lower optimizer.learning_rate (see zoo lr-find), warm up by schedule.warmup_epochs, or clip gradients "
    advice += "by optimizer.clip_norm=1"
    for failure in evidence.failures[-1:]:
        yield Finding("diverged", f"Training stopped: {failure['failed'].partition('. ')[0]}", advice, failure)
    losses = [row["loss"] for row in evidence.rows if row.get("loss") is not None]
    if len(losses) > 1 and losses[-1] > 2 * min(losses[:-1]) and losses[-1] > (evidence.guess or min(losses)):
        what = f"The training loss rose to {losses[-1]:.4g} after it had been {min(losses):.4g}"
        yield Finding("diverged", what, advice, {"first": losses[0], "least": min(losses), "last": losses[-1]})


def _zero(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.steps:
        return
    updates = evidence.steps[0]["updates"]
    zeros = [layer for layer, ratio in updates.items() if ratio is None]
    if len(updates) > 1 and 2 * len(zeros) >= len(updates):
        what = f"The weights of {_some(zeros)} began at zero, so that all units of a layer learn the same, or nothing"
        yield Finding(
            "zero_weights", what, "draw initial weights at random: leave model.weights empty", {"zero": zeros}
        )


def _vanishing(evidence: Evidence) -> Iterator[Finding]:
    shares = _medians([_relative(step["gradients"]) for step in evidence.steps])
    gone = {layer: share for layer, share in shares.items() if share < VANISHED}
    # Where all but the last are nothing, there is nothing to compare with.
    if not gone or any(finding.fault == "zero_weights" for finding in _zero(evidence)):
        return
    worst = min(gone, key=lambda layer: gone[layer])
    what = f"Gradients vanish: that of {worst} is {gone[worst]:.1g} of the largest, {len(gone)} of {len(shares)} layers"
    what += f" are below {VANISHED:g}"
    advice = "model.options.activation=relu instead of sigmoid or tanh, batch normalization, residual connections, or "
    advice += "fewer layers"
    yield Finding("vanishing", what, advice, {"share_of_largest": gone})


def _exploding(evidence: Evidence) -> Iterator[Finding]:
    norms = [step["gradient_norm"] for step in evidence.steps]
    known = [norm for norm in norms if norm]
    if None not in norms and (len(known) < 2 or max(known) <= EXPLODED * known[0]):
        return
    last = next((s for s in evidence.steps if s["gradient_norm"] in (None, max(known, default=None))), None)
    gradients = {k: math.inf if v is None else v for k, v in (last or {}).get("gradients", {}).items()}
    worst = max(gradients, key=lambda layer: gradients[layer], default="unknown")
    shown = "no longer finite" if None in norms else f"{max(known):.3g}, from {known[0]:.3g} at first"
    what = f"Gradients explode: their norm is {shown} (step {last['step'] if last else 0}), most of it in {worst}"
    advice = "optimizer.clip_norm=1, a lower optimizer.learning_rate, or normalization between the layers"
    yield Finding("exploding", what, advice, {"gradient_norms": norms, "layer": worst})


def _dead(evidence: Evidence) -> Iterator[Finding]:
    dead = {layer: share for layer, share in _last(evidence, "dead").items() if share > DEAD}
    if dead:
        what = f"ReLUs are dead: {_shares(dead)} of the units are 0 for every example of a batch"
        advice = "a lower optimizer.learning_rate, other initial weights and biases, batch normalization, or "
        advice += "model.options.activation=gelu"
        yield Finding("dead_relu", what, advice, {"dead": dead})


def _saturated(evidence: Evidence) -> Iterator[Finding]:
    found = {layer: share for layer, share in _last(evidence, "saturated").items() if share > SATURATED}
    if found:
        what = f"Activations saturate: {_shares(found)} of the values lie at the ends of their range, where nothing is "
        what += "learnt"
        advice = (
            "scale the inputs (data.normalize=zscore), smaller initial weights, a lower optimizer.learning_rate, or "
        )
        advice += "model.options.activation=relu"
        yield Finding("saturated", what, advice, {"saturated": found})


def _rate(evidence: Evidence) -> Iterator[Finding]:
    peak = _medians([step["updates"] for step in evidence.at_peak() if step["step"] > 1 or len(evidence.steps) == 1])
    if not peak:
        return
    ratio = statistics.median(peak.values())
    figures = {"median_update": ratio, "updates": peak}
    shown = f"a step moves the weights by {ratio:.1g} of their size (the median layer; 1e-3 is usual)"
    if ratio > WILD or (ratio > FAST and _little_learnt(evidence)):
        yield Finding("rate_too_high", f"The learning rate is too high: {shown}", "see zoo lr-find RECIPE", figures)
    if ratio < SLOW and _little_learnt(evidence):
        yield Finding("rate_too_low", f"The learning rate is too low: {shown}", "see zoo lr-find RECIPE", figures)


def _overfitting(evidence: Evidence) -> Iterator[Finding]:
    rows = [row for row in evidence.rows if None not in (row.get("loss"), row.get("val_loss"))]
    if not rows:
        return
    best, last = min(rows, key=lambda row: row["val_loss"]), rows[-1]
    risen = last["val_loss"] > RISEN * best["val_loss"] and last["loss"] < best["loss"]
    gap = last["accuracy"] - last["val_accuracy"] if "val_accuracy" in last else 0.0
    if not (gap > GAP or (risen and gap >= 0)):
        return
    what = (
        f"It overfits: the training loss is {last['loss']:.4g} and the validation loss {last['val_loss']:.4g}, at its "
    )
    what += f"best {best['val_loss']:.4g} in epoch {best['epoch']}"
    if "val_accuracy" in last:
        what += f"; accuracy {last['accuracy']:.4f} and {last['val_accuracy']:.4f}"
    advice = (
        "more data, data.augment, regularize.dropout, optimizer.weight_decay, regularize.patience, or a smaller model"
    )
    yield Finding("overfitting", what, advice, {"best": best, "last": last})


def _underfitting(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.rows or not _little_learnt(evidence):
        return
    last = evidence.rows[-1]
    what = f"It underfits: after {last['epoch']} epochs the training loss is {last['loss']:.4g}"
    what += (
        f", guessing would have {evidence.guess:.4g}"
        if evidence.guess
        else f", {evidence.rows[0]['loss']:.4g} at first"
    )
    advice = "more epochs, another optimizer.learning_rate (see zoo lr-find), a larger model, or less regularization"
    yield Finding("underfitting", what, advice, {"loss": last["loss"], "guessing": evidence.guess})


def _starving(evidence: Evidence) -> Iterator[Finding]:
    # In the first epoch steps wait for their compilation, and not for data.
    waits = [row["data_wait"] for row in evidence.rows[1:] or evidence.rows if row.get("data_wait") is not None]
    if waits and statistics.median(waits) > STARVED:
        share = statistics.median(waits)
        what = f"Training waits for its data for {100 * share:.0f}% of the time"
        advice = "smaller images on disk, data on a local disk, data.augment.place=device, or a larger data.batch_size"
        yield Finding("starving", what, advice, {"data_wait": share})


def _one_sided(evidence: Evidence) -> Iterator[Finding]:
    confusion = evidence.confusion
    if not confusion or len(confusion) < 2:
        return
    names = evidence.labels or [str(i) for i in range(len(confusion))]
    count = [sum(row) for row in confusion]
    never = [i for i, n in enumerate(count) if n >= FEW and not any(row[i] for row in confusion)]
    advice = "loss.balanced=true, loss.name=focal, or more examples of the rare classes"
    figures = {"examples": dict(zip(names, count, strict=True)), "never": [names[i] for i in never]}
    if never:
        what = f"Never predicted: {_some([names[i] for i in never])}, {len(never)} of {len(names)} classes"
        yield Finding("class_never_predicted", what, advice, figures)
    present = [i for i, n in enumerate(count) if n >= FEW]
    rare, common = (pick(present, key=lambda i: count[i], default=0) for pick in (min, max))
    if present and count[common] > IMBALANCED * count[rare] and 2 * confusion[rare][rare] < count[rare]:
        what = (
            f"Classes are imbalanced: {names[common]} has {count[common]} examples and {names[rare]} {count[rare]}, of "
        )
        what += f"which {confusion[rare][rare]} are recognized"
        yield Finding("imbalance", what, advice, figures)


# The gravest first.
CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    _diverged,
    _zero,
    _exploding,
    _vanishing,
    _dead,
    _saturated,
    _rate,
    _overfitting,
    _underfitting,
    _one_sided,
    _starving,
)


def _little_learnt(evidence: Evidence) -> bool:
    """Tell whether both losses are nearly those of guessing, or of the beginning where nothing can be guessed."""
    if not evidence.rows:
        return False
    last = evidence.rows[-1]
    if evidence.guess:
        reference = evidence.guess
    elif len(evidence.rows) > 1:
        reference = evidence.rows[0]["loss"]
    else:
        return False
    return min(last["loss"], last["val_loss"]) > GUESSING * reference


def _relative(gradients: dict[str, float | None]) -> dict[str, float | None]:
    """Return each gradient as a share of the largest."""
    most = max((g for g in gradients.values() if g), default=0.0)
    return {layer: None if g is None or not most else g / most for layer, g in gradients.items()}


def _medians(rows: list[dict[str, float | None]]) -> dict[str, float]:
    """Return the median of each layer over all rows that know it."""
    layers = dict.fromkeys(layer for row in rows for layer in row)
    known = {layer: [row[layer] for row in rows if row.get(layer) is not None] for layer in layers}
    return {layer: statistics.median(values) for layer, values in known.items() if values}


def _last(evidence: Evidence, key: str) -> dict[str, float]:
    """Return the medians of the last three measured steps: what is so in the end, and not by chance."""
    return _medians([step[key] for step in evidence.steps[-3:]])


def _shares(layers: dict[str, float]) -> str:
    return _some([f"in {layer} {100 * share:.0f}%" for layer, share in layers.items()])


def _some(names: list[str]) -> str:
    """Return a few of many names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
