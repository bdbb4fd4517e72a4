"""Parity: an artifact in its runtime compared with its source model on real test examples."""

from __future__ import annotations

import dataclasses
from typing import Any

from export.core.generate import Generator, check_parts, compare_sequences
from export.core.runtime import Runtime, Tensor
from export.core.samples import CALL_EXAMPLES, SECOND_PASS, count_examples, examples_per_call, take_examples
from export.core.tolerance import Tolerance
from export.verification.encoded import encode_png, with_frame
from export.verification.measures import Measure, measure_of
from zoo.common.errors import ParityError
from zoo.common.lazy import np


@dataclasses.dataclass(frozen=True)
class Parity:
    """The comparison of an artifact with its source model on `n` test examples.

    Args:
        n: number of examples.
        max: largest error of a logit, or of a value.
        mean: mean error.
        relative: `max` as a fraction of the source's largest logit, or of the range of its values.
        agreement: fraction of equal top-1 predictions; of equal decisions in multi-label tasks; None in regression.
        accuracy: the artifact's accuracy, or the metric named in `metric`; None without labels.
        source_accuracy: the source model's.
        batches: batch sizes that were run.
        tolerance: the allowed errors.
        passed: whether the artifact is within tolerance.
        sequence_agreement: fraction of generated sequences equal to the source's, token by token; None for others.
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
    sequence_agreement: float | None = None
    metric: str = "accuracy"
    mae: float | None = None
    source_mae: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values."""
        return dataclasses.asdict(self) | {"batches": list(self.batches)}


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
    measure = measure_of(expected.get("task", "classify"))
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
    metrics = {
        "max": float(np.max([errors.max(), *largest])),
        "mean": float(errors.mean()),
        **_metrics(measure, logits[valid], source[valid], None if labels is None else labels[valid]),
        **(compare_sequences(runtime, samples) if isinstance(runtime, Generator) else {}),
    }
    metrics["relative"] = metrics["max"] / measure.scale(source[valid])
    tolerance = measure.adjust(tolerance if labels is not None else _without_labels(tolerance, len(source)))
    passed, known = _is_within(metrics, tolerance), {"metric": measure.metric, "tolerance": tolerance}
    return Parity(n=len(source), batches=tuple(sizes), passed=passed, **known, **metrics)


def _large_batch(inputs: Any) -> int:
    """Return a batch that is not 1: a third of the examples, or fewer if they are large."""
    third, fits = max(2, count_examples(inputs) // 3), examples_per_call(inputs)
    return third if fits >= CALL_EXAMPLES else min(third, fits)


def _valid(samples: dict[str, Any], measure: Measure) -> Any:
    """Return which predictions are compared."""
    if "labels" in samples:
        return measure.labeled(samples["labels"])
    return samples.get("valid", np.ones(samples["logits"].shape[:-1], bool))


def _without_labels(tolerance: Tolerance, count: int) -> Tolerance:
    """Return the tolerance for a few examples without labels: one may differ, unless all must agree."""
    if tolerance.agreement >= 1.0:
        return tolerance
    return dataclasses.replace(tolerance, agreement=min(tolerance.agreement, 1 - 1 / count))


def _metrics(measure: Measure, logits: Any, source: Any, labels: Any) -> dict[str, Any]:
    """Return agreement and accuracies; accuracies are None without labels."""
    if labels is not None:
        return measure.metrics(logits, source, labels)
    return {**measure.metrics(logits, source, source.argmax(-1)), "accuracy": None, "source_accuracy": None}


def _is_within(metrics: dict[str, Any], tolerance: Tolerance) -> bool:
    """Return whether metrics are within a tolerance."""
    return (
        # A comparison with NaN is false: an artifact with NaN outputs fails here.
        metrics["relative"] <= tolerance.relative
        and (metrics["agreement"] is None or metrics["agreement"] >= tolerance.agreement)
        and (metrics["accuracy"] is None or metrics["source_accuracy"] - metrics["accuracy"] <= tolerance.drop + 1e-9)
        # If all predictions must agree, so must all generated tokens.
        and (metrics.get("sequence_agreement", 1.0) >= 1.0 or tolerance.agreement < 1.0)
    )


def require(parity: Parity, name: str) -> None:
    """Raise ParityError with the metrics of the artifact `name` unless it is within tolerance."""
    if parity.passed:
        return
    tolerance = parity.tolerance
    scale = " of the value range" if parity.agreement is None else ""
    parts = [f"max error {parity.relative:.3g}{scale} (tolerance {tolerance.relative:g})"]
    agreement = {"accuracy": "top-1 agreement", "mean_average_precision": "label agreement"}.get(parity.metric)
    if agreement:
        parts.append(f"{agreement} {percent(parity.agreement)} (minimum {percent(tolerance.agreement)})")
    if parity.sequence_agreement is not None:
        parts.append(f"sequence agreement {percent(parity.sequence_agreement)}")
    if parity.accuracy is not None:
        metric, points = parity.metric.replace("_", " "), f"{100 * tolerance.drop:g} points"
        source = percent(parity.source_accuracy)
        parts.append(f"{metric} {percent(parity.accuracy)} (source {source}, largest drop {points})")
    raise ParityError(f"{name} failed verification on {parity.n} examples: {', '.join(parts)}")


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
