"""Parity: an artifact in its runtime compared with its source model on real test examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from export.core.generate import Generator, check_parts, compare_sequences
from export.core.runtime import Runtime, Tensor
from export.core.samples import CALL_EXAMPLES, SECOND_PASS, count_examples, examples_per_call, take_examples
from export.core.tolerance import Tolerance
from export.verification.accuracy_drop import paired_drop
from export.verification.encoded import encode_png, with_frame
from export.verification.gate import AGREEMENT, EXACT, deciding_metric, failed_limits, has_enough_examples
from export.verification.measures import Measure, drop_fields, measure_of
from zoo.common.errors import ParityError
from zoo.common.lazy import np

# Names of the agreement, by metric.
AGREEMENTS = {
    "accuracy": "top-1 agreement",
    "mean_average_precision": "label agreement",
    "neighbors": "nearest-neighbor agreement",
}


@dataclasses.dataclass(frozen=True)
class Parity:
    """The comparison of an artifact with its source model on `n` test examples.

    Args:
        n: number of examples.
        max: largest error of a logit, or of a value.
        mean: mean error.
        relative: `max` as a fraction of the source's largest logit, or of the range of its values.
        agreement: fraction of equal top-1 predictions; of equal decisions in multi-label tasks; of vectors with the
            same nearest neighbor among the examples; None in regression.
        accuracy: the artifact's accuracy, or the metric named in `metric`; None without labels.
        source_accuracy: the source model's.
        batches: batch sizes that were run.
        tolerance: the allowed errors.
        passed: whether the artifact is within tolerance.
        decided_by: what decides: "exact" for an exact tolerance, else `metric`, or without labels "agreement", or "snr"
            in regression.
        failed: the limits that the artifact is not within: "relative", "snr", "agreement", "accuracy",
            "sequence_agreement".
        enough: whether the examples suffice to tell if the artifact is within a statistical tolerance; None for an
            exact one.
        snr: signal-to-noise ratio of the logits in dB, without what all classes have in common; of the values in
            regression.
        weighted_agreement: `agreement` with each example weighted by the source's margin; None in regression.
        drop: loss of `accuracy`; None without labels.
        drop_interval: its bounds; each holds with 95%.
        drop_p: how often an artifact that loses nothing shows such a loss; of McNemar's exact test, or of a t-test on
            the jackknife for metrics other than accuracy.
        sequence_agreement: fraction of generated sequences equal to the source's, token by token; None for others.
        cosine: lowest cosine of a vector with the source's; None for other tasks.
        metric: what `accuracy` is: "accuracy"; "mean_average_precision" in multi-label tasks; "r2" in regression.
        mae: in regression, the artifact's mean absolute error in the data's units.
        source_mae: the source model's.
    """

    n: int
    max: float
    mean: float
    relative: float
    agreement: float | None
    accuracy: float | None
    source_accuracy: float | None
    batches: tuple[int, ...]
    tolerance: Tolerance
    passed: bool
    decided_by: str
    failed: tuple[str, ...]
    enough: bool | None
    snr: float
    weighted_agreement: float | None
    drop: float | None
    drop_interval: list[float] | None
    drop_p: float | None
    sequence_agreement: float | None = None
    cosine: float | None = None
    metric: str = "accuracy"
    mae: float | None = None
    source_mae: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values."""
        return dataclasses.asdict(self) | {"batches": list(self.batches), "failed": list(self.failed)}


def compare(runtime: Runtime, samples: dict[str, Any], tolerance: Tolerance, expected: dict[str, Any]) -> Parity:
    """Run an artifact on the samples and compare it with its source model.

    Args:
        runtime: the artifact in its runtime.
        samples: see `export.source.run_source.open_run_source`; labels (n, ...) are -1 where there is none. Without
            labels "valid" may mark the predictions to compare, all by default.
        tolerance: the format's; see `export.verification.measures` for tasks other than classification.
        expected: the metadata that the artifact must carry: the source model's.

    Returns:
        The metrics; `passed` is whether they are within tolerance.

    Raises:
        ParityError: names, shapes or metadata differ from the source's.
    """
    inputs, source, labels = samples["inputs"], samples["logits"], samples.get("labels")
    task = expected.get("task", "classify")
    measure = measure_of(task)
    _check_interface(runtime, samples, expected)
    # A dynamic batch also runs at a size that is not 1, which nothing was compiled for.
    sizes = [runtime.batch] if runtime.batch else [_large_batch(inputs), 1]
    logits = _in_batches(runtime, inputs, sizes[0])
    _check_shape(logits, source)
    valid, first = _valid(samples, measure), take_examples(inputs, SECOND_PASS)
    others = [_in_batches(runtime, first, size) for size in sizes[1:]]
    encoded = (_through_bytes(runtime, first, expected), _through_strings(runtime, samples))
    others += [outputs for outputs in encoded if outputs is not None]
    errors = np.abs(logits - source)[valid]
    largest = [np.abs(outputs - source[:SECOND_PASS])[valid[:SECOND_PASS]].max() for outputs in others]
    found = {
        "max": float(np.max([errors.max(), *largest])),
        "mean": float(errors.mean()),
        "metric": measure.metric,
        "sequence_agreement": None,
        **measure.compare(logits[valid], source[valid], None if labels is None else labels[valid]),
        **(_sequences(runtime, samples) if isinstance(runtime, Generator) else {}),
    }
    found["relative"] = found["max"] / measure.scale(source[valid])
    adjusted = _adjust(tolerance, found, len(source), task)
    failed = failed_limits(found, adjusted)
    return Parity(
        n=len(source),
        batches=tuple(sizes),
        tolerance=adjusted,
        passed=not failed,
        failed=failed,
        decided_by=deciding_metric(found, adjusted),
        enough=has_enough_examples(found, measure.adjust(tolerance), len(source)),
        **found,
    )


def passes(parity: Parity, tolerance: Tolerance, task: str) -> bool:
    """Return whether an artifact would be within another tolerance of its format."""
    return not failed_limits(vars(parity), _adjust(tolerance, vars(parity), parity.n, task))


def _adjust(tolerance: Tolerance, found: dict[str, Any], count: int, task: str) -> Tolerance:
    """Return the tolerance of a format for a task; without labels, one of a few examples may have another top-1."""
    adjusted = measure_of(task).adjust(tolerance)
    if found["drop"] is not None or adjusted.agreement >= 1.0:
        return adjusted
    return dataclasses.replace(adjusted, agreement=min(adjusted.agreement, 1 - 1 / count))


def _sequences(runtime: Generator, samples: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of generated sequences; accuracies are None without labels."""
    agreement, right, source_right = compare_sequences(runtime, samples)
    if right is None or source_right is None:
        return {"sequence_agreement": agreement, "accuracy": None, "source_accuracy": None, **drop_fields(None)}
    accuracies = {"accuracy": float(right.mean()), "source_accuracy": float(source_right.mean())}
    return {"sequence_agreement": agreement, **accuracies, **drop_fields(paired_drop(right, source_right))}


def _large_batch(inputs: Any) -> int:
    """Return a batch that is not 1: a third of the examples, or fewer if they are large."""
    third, fits = max(2, count_examples(inputs) // 3), examples_per_call(inputs)
    return third if fits >= CALL_EXAMPLES else min(third, fits)


def _valid(samples: dict[str, Any], measure: Measure) -> Any:
    """Return which predictions are compared."""
    if "labels" in samples:
        return measure.labeled(samples["labels"])
    return samples.get("valid", np.ones(samples["logits"].shape[:-1], bool))


def require(parity: Parity, name: str, remedies: Sequence[str] = ()) -> None:
    """Raise ParityError with the metrics of the artifact `name` unless it is within tolerance.

    Args:
        parity: the comparison.
        name: the artifact, for the message.
        remedies: what to try instead, the most promising first; see `export.verification.remedies`.
    """
    if parity.passed:
        return
    metrics = ", ".join(filter(None, (_error_text(parity), _agreement_text(parity), _accuracy_text(parity))))
    advice = f". Try, in this order: {'; '.join(remedies)}" if remedies else ""
    raise ParityError(f"{name} failed verification on {parity.n} examples: {metrics}{_too_few(parity)}{advice}")


def _error_text(parity: Parity) -> str:
    """Return the largest error, and the signal-to-noise ratio if it is limited."""
    scale = " of the value range" if parity.agreement is None else ""
    text = f"max error {parity.relative:.3g}{scale} (tolerance {parity.tolerance.relative:g})"
    text += "" if parity.cosine is None else f", lowest cosine {parity.cosine:.4g}"
    if parity.tolerance.snr is None:
        return text
    return f"{text}, signal-to-noise ratio {parity.snr:.1f} dB (minimum {parity.tolerance.snr:.3g} dB)"


def _agreement_text(parity: Parity) -> str:
    """Return the agreements, with a limit if it counts."""
    words = AGREEMENTS.get(parity.metric)
    texts, minimum = [], f" (minimum {percent(parity.tolerance.agreement)})"
    if words and parity.agreement is not None and parity.weighted_agreement is not None:
        texts = [f"{words} {percent(parity.agreement)}{minimum if parity.decided_by == EXACT else ''}"]
        weighted = f"{percent(parity.weighted_agreement)} weighted by the margin of the source"
        texts += (
            [] if parity.decided_by == EXACT else [f"{weighted}{minimum if parity.decided_by == AGREEMENT else ''}"]
        )
    if parity.sequence_agreement is not None:
        texts.append(f"sequence agreement {percent(parity.sequence_agreement)}")
    return ", ".join(texts)


def _accuracy_text(parity: Parity) -> str:
    """Return the metric of both models and its allowed loss; "" without labels."""
    if parity.accuracy is None or parity.source_accuracy is None:
        return ""
    allowed, metric = f"largest drop {100 * parity.tolerance.drop:.4g} points", parity.metric.replace("_", " ")
    if parity.decided_by != EXACT and parity.drop is not None and parity.drop_interval:
        low, high = (100 * bound for bound in parity.drop_interval)
        allowed = f"drop {100 * parity.drop:.3g} points, 95% bounds {low:.3g} and {high:.3g}, {allowed}"
    return f"{metric} {percent(parity.accuracy)} (source {percent(parity.source_accuracy)}, {allowed})"


def _too_few(parity: Parity) -> str:
    """Return a hint if the examples are too few for a decision by accuracy or agreement."""
    what = "agreement" if parity.drop is None else parity.metric.replace("_", " ")
    return f"; {parity.n} examples are too few to decide by {what}" if parity.enough is False else ""


def percent(fraction: float) -> str:
    """Return a fraction in percent, such as "97.5 %"; never rounded up to 100."""
    return f"{np.floor(1e4 * fraction + 1e-6) / 100:g} %"


def _check_interface(runtime: Runtime, samples: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise ParityError if the artifact's names, shapes or metadata differ from the source's."""
    if runtime.metadata != expected:
        raise ParityError(
            f"The metadata in the artifact must equal its source's. Received: {str(runtime.metadata)[:200]}"
        )
    if isinstance(runtime, Generator):
        check_parts(runtime, samples)
        return
    interface = [
        (runtime.inputs, expected["input"], samples["inputs"]),
        (runtime.outputs, expected["output"], samples["logits"]),
    ]
    for tensors, name, array in interface:
        if [t.name for t in tensors] != [name]:
            raise ParityError(f"The artifact must have one tensor {name!r}. Received: {[t.name for t in tensors]}")
        _check_tensor(tensors[0], array.shape[1:], runtime.batch)


def _check_tensor(tensor: Tensor, shape: tuple[int, ...], batch: int | None) -> None:
    if tuple(tensor.shape) != (batch, *shape):
        raise ParityError(f"{tensor.name} must have the shape {(batch, *shape)}. Received: {tensor.shape}")


def _check_shape(logits: Any, source: Any) -> None:
    if logits.shape != source.shape or str(logits.dtype) != "float32":
        raise ParityError(
            f"Expected logits of shape {source.shape} in float32. Received: {logits.shape} in {logits.dtype}"
        )


def _in_batches(runtime: Runtime, inputs: Any, size: int) -> Any:
    """Run the inputs in batches of `size`."""
    return np.concatenate(
        [runtime(take_examples(inputs, size, first)) for first in range(0, count_examples(inputs), size)]
    )


def _through_bytes(runtime: Runtime, inputs: Any, expected: dict[str, Any]) -> Any:
    """Run the inputs as encoded PNGs; None if the artifact has no such input."""
    if isinstance(inputs, dict) or inputs.ndim != 4 or inputs.shape[-1] not in (1, 3, 4):
        return None
    crop = expected.get("preprocessing", {}).get("crop", 1.0)
    return runtime.classify_bytes([encode_png(with_frame(image, crop)) for image in inputs])


def _through_strings(runtime: Runtime, samples: dict[str, Any]) -> Any:
    """Run the texts of the first inputs; None if they are unknown or the artifact has no such input."""
    return runtime.classify_strings([str(text) for text in samples["texts"]]) if "texts" in samples else None
