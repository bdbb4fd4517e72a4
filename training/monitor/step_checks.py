"""Checks of measured steps: gradients, units and the learning rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from training.monitor.findings import Evidence, Finding, medians, shorten_list

# Fraction of the largest gradient below which a layer does not train.
VANISHED = 1e-4
# Multiple of the first gradient norm.
EXPLODED = 100.0
# Fractions of units that are 0 for a whole batch, and of values at the ends of their range.
DEAD, SATURATED = 0.7, 0.7
# |update| / |weight| of a step: 1e-3 is usual; above the last bound there needs to be no other symptom.
SLOW, FAST, WILD = 1e-4, 1e-2, 0.2


def check_zero_weights(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for weights that start at zero."""
    if not evidence.steps:
        return
    updates = evidence.steps[0]["updates"]
    zeros = [layer for layer, ratio in updates.items() if ratio is None]
    if len(updates) > 1 and 2 * len(zeros) >= len(updates):
        what = f"The initial weights of {shorten_list(zeros)} are zero: all units of a layer get equal or no gradients"
        advice = "draw initial weights at random: leave model.weights empty"
        yield Finding("zero_weights", what, advice, {"zero": zeros})


def check_vanishing(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for gradients that vanish."""
    ratios = medians([_relative(step["gradients"]) for step in evidence.steps])
    vanished = {layer: ratio for layer, ratio in ratios.items() if ratio < VANISHED}
    # Gradients of zero in all layers but the last leave nothing to compare with.
    if not vanished or any(finding.fault == "zero_weights" for finding in check_zero_weights(evidence)):
        return
    worst = min(vanished, key=lambda layer: vanished[layer])
    what = f"Gradients vanish: that of {worst} is {vanished[worst]:.1g} of the largest, {len(vanished)} of "
    what += f"{len(ratios)} layers are below {VANISHED:g}"
    advice = "model.options.activation=relu instead of sigmoid or tanh, batch normalization, residual connections, or "
    advice += "fewer layers"
    yield Finding("vanishing", what, advice, {"share_of_largest": vanished})


def check_exploding(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for gradients that explode."""
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


def check_dead(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for dead ReLUs."""
    dead = {layer: fraction for layer, fraction in evidence.last_medians("dead").items() if fraction > DEAD}
    if dead:
        what = f"ReLUs are dead: {_percentages(dead)} of the units are 0 for every example of a batch"
        advice = "a lower optimizer.learning_rate, other initial weights and biases, batch normalization, or "
        advice += "model.options.activation=gelu"
        yield Finding("dead_relu", what, advice, {"dead": dead})


def check_saturated(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for saturated activations."""
    fractions = evidence.last_medians("saturated")
    saturated = {layer: fraction for layer, fraction in fractions.items() if fraction > SATURATED}
    if saturated:
        what = f"Activations saturate: {_percentages(saturated)} of the values are at the ends of their range, where "
        what += "gradients are near 0"
        advice = "scale the inputs (data.normalize=zscore), smaller initial weights, a lower optimizer.learning_rate, "
        advice += "or model.options.activation=relu"
        yield Finding("saturated", what, advice, {"saturated": saturated})


def check_learning_rate(evidence: Evidence) -> Iterator[Finding]:
    """Yield a finding for a learning rate that is too high or too low."""
    peak = medians([step["updates"] for step in evidence.at_peak() if step["step"] > 1 or len(evidence.steps) == 1])
    if not peak:
        return
    ratio = statistics.median(peak.values())
    metrics = {"median_update": ratio, "updates": peak}
    shown = f"a step changes the weights by {ratio:.1g} of their size (the median layer; 1e-3 is usual)"
    if ratio > WILD or (ratio > FAST and evidence.is_near_guessing()):
        yield Finding("rate_too_high", f"The learning rate is too high: {shown}", "see zoo lr-find RECIPE", metrics)
    if ratio < SLOW and evidence.is_near_guessing():
        yield Finding("rate_too_low", f"The learning rate is too low: {shown}", "see zoo lr-find RECIPE", metrics)


def _relative(gradients: dict[str, float | None]) -> dict[str, float | None]:
    """Return each gradient as a fraction of the largest."""
    largest = max((g for g in gradients.values() if g), default=0.0)
    return {layer: None if g is None or not largest else g / largest for layer, g in gradients.items()}


def _percentages(layers: dict[str, float]) -> str:
    return shorten_list([f"in {layer} {100 * fraction:.0f}%" for layer, fraction in layers.items()])
