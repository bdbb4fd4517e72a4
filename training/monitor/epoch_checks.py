"""Checks of the metrics by epoch and of the confusion matrix."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

from training.monitor.findings import Evidence, Finding, shorten_list

# Fraction of the time spent waiting for data.
STARVED = 0.2
# Training accuracy minus validation accuracy.
GAP = 0.15
# Validation RMSE as a multiple of the training RMSE, and how much of the variance the difference is.
APART, UNEXPLAINED = 1.5, 0.05
# Final validation loss as a multiple of its minimum, while the training loss decreases.
RISEN = 1.3
# Examples of a class that make a missing prediction significant; multiple of the rarest class.
FEW, IMBALANCED = 5, 10
# Probability of as many classes without a prediction in a model that is as accurate for every class.
CHANCE = 0.05


def check_diverged(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for a training that failed or diverged."""
    advice = "lower optimizer.learning_rate (see zoo lr-find), warm up by schedule.warmup_epochs, or clip gradients "
    advice += "by optimizer.clip_norm=1"
    for failure in evidence.failures[-1:]:
        yield Finding("diverged", f"Training stopped: {failure['failed'].partition('. ')[0]}", advice, failure)
    losses = [row["loss"] for row in evidence.rows if row.get("loss") is not None]
    if len(losses) > 1 and losses[-1] > 2 * min(losses[:-1]) and losses[-1] > (evidence.guess or min(losses)):
        what = f"The training loss increased to {losses[-1]:.4g} from a minimum of {min(losses):.4g}"
        yield Finding("diverged", what, advice, {"first": losses[0], "least": min(losses), "last": losses[-1]})


def check_overfitting(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for a validation loss that increases, or an accuracy gap."""
    rows = [row for row in evidence.rows if None not in (row.get("loss"), row.get("val_loss"))]
    if not rows:
        return
    best, last = min(rows, key=lambda row: row["val_loss"]), rows[-1]
    risen = last["val_loss"] > RISEN * best["val_loss"] and last["loss"] < best["loss"]
    gap = last["accuracy"] - last["val_accuracy"] if "val_accuracy" in last else 0.0
    if not (gap > GAP or (risen and gap >= 0) or _errs_apart(last)):
        return
    what = f"The model overfits: training loss {last['loss']:.4g}, validation loss {last['val_loss']:.4g}, its minimum "
    what += f"{best['val_loss']:.4g} in epoch {best['epoch']}"
    if "val_accuracy" in last:
        what += f"; accuracy {last['accuracy']:.4f} and {last['val_accuracy']:.4f}"
    if "val_rmse" in last:
        what += f"; RMSE {last['rmse']:.4g} and {last['val_rmse']:.4g}"
    advice = "more data, data.augment, regularize.dropout, optimizer.weight_decay, regularize.patience, or a smaller "
    advice += "model"
    yield Finding("overfitting", what, advice, {"best": best, "last": last})


def _errs_apart(row: dict[str, Any]) -> bool:
    """Return whether numbers of the validation split are predicted much worse than those of the training split."""
    ours, theirs = row.get("rmse"), row.get("val_rmse")
    if ours is None or not theirs or theirs <= APART * ours:
        return False
    # The validation loss is the squared error as a fraction of the variance.
    return row["val_loss"] * (1 - (ours / theirs) ** 2) > UNEXPLAINED


def check_underfitting(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for a loss near that of guessing."""
    if not evidence.rows or not evidence.is_near_guessing():
        return
    last = evidence.rows[-1]
    reference = (
        f"that of guessing {evidence.guess:.4g}" if evidence.guess else f"{evidence.rows[0]['loss']:.4g} at first"
    )
    what = f"The model underfits: after {last['epoch']} epochs the training loss is {last['loss']:.4g}, {reference}"
    advice = "more epochs, another optimizer.learning_rate (see zoo lr-find), a larger model, or less regularization"
    yield Finding("underfitting", what, advice, {"loss": last["loss"], "guessing": evidence.guess})


def check_starving(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for steps that wait for data."""
    # In the first epoch steps wait for their compilation, not for data.
    waits = [row["data_wait"] for row in evidence.rows[1:] or evidence.rows if row.get("data_wait") is not None]
    if waits and statistics.median(waits) > STARVED:
        fraction = statistics.median(waits)
        what = f"Training waits for data {100 * fraction:.0f}% of the time"
        advice = "smaller images on disk, data on a local disk, data.augment.place=device, or a larger data.batch_size"
        yield Finding("starving", what, advice, {"data_wait": fraction})


def _never_predicted(confusion: list[list[int]], count: list[int]) -> list[int]:
    """Return the classes that are never predicted, if this is significant."""
    missing = [i for i, n in enumerate(count) if n and not any(row[i] for row in confusion)]
    wrong = 1 - sum(row[i] for i, row in enumerate(confusion)) / max(1, sum(count))
    # The number of such classes is close to a Poisson variable: all examples of a class are wrong by chance.
    mean = sum(wrong**n for n in count if n)
    chances = [math.exp(-mean)]
    for k in range(1, len(missing)):
        chances.append(chances[-1] * mean / k)
    unlikely = missing and 1 - sum(chances) < CHANCE
    return missing if unlikely else [i for i in missing if count[i] >= FEW]


def check_classes(evidence: Evidence) -> Iterator[Finding]:
    """Yield findings for classes that are never predicted, and for imbalanced ones."""
    confusion = evidence.confusion
    if not confusion or len(confusion) < 2:
        return
    names = evidence.labels or [str(i) for i in range(len(confusion))]
    count = [sum(row) for row in confusion]
    never = _never_predicted(confusion, count)
    advice = "loss.balanced=true, loss.name=focal, or more examples of the rare classes"
    metrics = {"examples": dict(zip(names, count, strict=True)), "never": [names[i] for i in never]}
    if never:
        what = f"Never predicted: {shorten_list([names[i] for i in never])}, {len(never)} of {len(names)} classes"
        yield Finding("class_never_predicted", what, advice, metrics)
    present = [i for i, n in enumerate(count) if n >= FEW]
    rare, common = (select(present, key=lambda i: count[i], default=0) for select in (min, max))
    if present and count[common] > IMBALANCED * count[rare] and 2 * confusion[rare][rare] < count[rare]:
        what = (
            f"Classes are imbalanced: {names[common]} has {count[common]} examples, {names[rare]} has {count[rare]}, "
        )
        what += f"and the model recognizes {confusion[rare][rare]} of these"
        yield Finding("imbalance", what, advice, metrics)
