"""Parity: an artifact in its runtime compared with its source model on real test examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from export.core.generate import Generator, check_parts, compare_sequences
from export.core.metadata import output_names
from export.core.runtime import Runtime, Tensor
from export.core.samples import CALL_EXAMPLES, SECOND_PASS, count_examples, examples_per_call, joined, take_examples
from export.core.tolerance import Tolerance
from export.verification.accuracy_drop import paired_drop
from export.verification.comparable import check_samples, valid_rows
from export.verification.compared import Compared, Parity
from export.verification.encoded import encode_png, with_frame
from export.verification.gate import AGREEMENT, EXACT
from export.verification.measures import drop_fields
from export.verification.outputs import compare_outputs
from zoo.common.errors import ParityError
from zoo.common.lazy import np

# Names of the agreement, by metric.
AGREEMENTS = {
    "accuracy": "top-1 agreement",
    "mean_average_precision": "label agreement",
    "neighbors": "nearest-neighbor agreement",
}


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
    _check_interface(runtime, samples, expected)
    check_samples(samples, expected)
    inputs, source = samples["inputs"], samples["logits"]
    # A dynamic batch also runs at a size that is not 1, which nothing was compiled for.
    sizes = [runtime.batch] if runtime.batch else [_large_batch(inputs), 1]
    outputs, first = _in_batches(runtime, inputs, sizes[0]), take_examples(inputs, SECOND_PASS)
    encoded = (
        _through_bytes(runtime, first, expected),
        _through_strings(runtime, samples),
        _through_rows(runtime, samples, expected),
    )
    others = [_in_batches(runtime, first, size) for size in sizes[1:]]
    others += [found for found in encoded if found is not None]
    if "outputs" in expected:
        return compare_outputs((outputs, others), samples, tolerance, expected["outputs"], sizes)
    task = expected.get("task", "classify")
    valid = valid_rows(samples, task)
    more = _sequences(runtime, samples) if isinstance(runtime, Generator) else {}
    compared = Compared(outputs, source, samples.get("labels"), valid, others, more)
    return compared.parity(task, tolerance, sizes)


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


def require(parity: Parity, name: str, remedies: Sequence[str] = ()) -> None:
    """Raise ParityError with the metrics of the artifact `name` unless it is within tolerance.

    Args:
        parity: the comparison.
        name: the artifact, for the message.
        remedies: what to try instead, the most promising first; see `export.verification.remedies`.
    """
    if parity.passed:
        return
    failed = {part: found for part, found in (parity.outputs or {"": parity}).items() if not found.passed}
    metrics = "; ".join(f"{part}: {_metrics_text(found)}".removeprefix(": ") for part, found in failed.items())
    advice = f". Try, in this order: {'; '.join(remedies)}" if remedies else ""
    raise ParityError(f"{name} failed verification on {parity.n} examples: {metrics}{_too_few(parity)}{advice}")


def _metrics_text(parity: Parity) -> str:
    """Return the metrics of one output."""
    return ", ".join(filter(None, (_error_text(parity), _agreement_text(parity), _accuracy_text(parity))))


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
    names, logits = output_names(expected), samples["logits"]
    outputs = logits if isinstance(logits, dict) else {names[0]: logits}
    inputs = samples["inputs"] if isinstance(samples["inputs"], dict) else {expected["input"]: samples["inputs"]}
    for tensors, arrays in ((runtime.inputs, inputs), (runtime.outputs, outputs)):
        found = {tensor.name: tensor for tensor in tensors}
        if found.keys() != arrays.keys() or len(found) != len(tensors):
            raise ParityError(
                f"The artifact must have the tensors {', '.join(map(repr, arrays))}. Received: "
                f"{[tensor.name for tensor in tensors]}"
            )
        for name, array in arrays.items():
            _check_tensor(found[name], array.shape[1:], runtime.batch)
            if array.dtype.kind == "U" and found[name].dtype != "string":
                raise ParityError(f"{name} must be {found[name].dtype}. Received: samples of strings")


def _check_tensor(tensor: Tensor, shape: tuple[int, ...], batch: int | None) -> None:
    # A free size of a user's model is None.
    fits = len(tensor.shape) == 1 + len(shape) and tensor.shape[0] == batch
    if not fits or any(own not in (None, size) for own, size in zip(tensor.shape[1:], shape, strict=True)):
        raise ParityError(f"{tensor.name} must have the shape {(batch, *shape)}. Received: {tensor.shape}")


def _in_batches(runtime: Runtime, inputs: Any, size: int) -> Any:
    """Run the inputs in batches of `size`."""
    return joined([runtime(take_examples(inputs, size, first)) for first in range(0, count_examples(inputs), size)])


def _through_bytes(runtime: Runtime, inputs: Any, expected: dict[str, Any]) -> Any:
    """Run the inputs as encoded PNGs; None if the artifact has no such input."""
    if isinstance(inputs, dict) or inputs.ndim != 4 or inputs.shape[-1] not in (1, 3, 4):
        return None
    if not expected.get("preprocessing"):
        return None
    crop = expected["preprocessing"].get("crop", 1.0)
    return runtime.classify_bytes([encode_png(with_frame(image, crop)) for image in inputs])


def _through_strings(runtime: Runtime, samples: dict[str, Any]) -> Any:
    """Run the texts of the first inputs; None if they are unknown or the artifact has no such input."""
    return runtime.classify_strings([str(text) for text in samples["texts"]]) if "texts" in samples else None


def _through_rows(runtime: Runtime, samples: dict[str, Any], expected: dict[str, Any]) -> Any:
    """Run the cells of the first rows of a table; None if they are unknown or the artifact has no such input."""
    if "rows" not in samples or "tabular" not in expected:
        return None
    names = [column["name"] for column in expected["tabular"]["columns"]]
    return runtime.classify_rows([dict(zip(names, map(str, row), strict=True)) for row in samples["rows"]])
