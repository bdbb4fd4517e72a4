"""The gate: an artifact in its real runtime against the model it came from, on real test examples."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

from export.core.format import Runtime, Tensor, Tolerance
from export.core.generate import Generator, check_parts, compare_written
from export.core.samples import FEW, SECOND, count_of, fitting, head
from export.verification.measures import Measure, measure_of
from zoo.common.errors import ParityError
from zoo.common.lazy import np


@dataclasses.dataclass(frozen=True)
class Parity:
    """How an artifact compares with its source on `n` test examples.

    Args:
        n: examples compared.
        max: largest difference of a logit, or of a value.
        mean: mean difference of them.
        relative: `max` as a share of the source's largest logit, or of the range of its values.
        agreement: share of examples with the same top-1; of several labels at once, equal decisions; None of numbers.
        accuracy: the artifact's accuracy on them; of sequences that are written, the share that is right; else what
            `figure` says; None where nobody knows what is right.
        source_accuracy: the source's.
        batches: batch sizes that were run.
        tolerance: what was allowed.
        passed: whether it kept to that.
        sequences_equal: share of the sequences it writes that equal its source's token by token, if it writes any.
        figure: what `accuracy` is: "accuracy"; "mean_average_precision" of several labels; "r2" of numbers.
        mae: of numbers, the artifact's mean absolute error in their own units.
        source_mae: the source's.
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
    sequences_equal: float | None = None
    figure: str = "accuracy"
    mae: float | None = None
    source_mae: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-safe values."""
        return dataclasses.asdict(self) | {"batches": list(self.batches)}


def compare(runtime: Runtime, samples: dict[str, Any], tolerance: Tolerance, expected: dict[str, Any]) -> Parity:
    """Run an artifact on the samples and compare it with its source.

    Args:
        runtime: the artifact in its real runtime.
        samples: see `export.source.source.open_source`; labels (n, ...) are -1 where there is no answer to compare, or where
            one of several labels is not known; without labels "real" may tell what to compare, all by default.
        tolerance: how far it may be, where the answer is one of several classes; see `export.verification.measures`.
        expected: what the artifact must say of itself: the source's metadata.

    Returns:
        The figures; `passed` tells whether they are within the tolerance.

    Raises:
        ParityError: names, shapes or metadata are not the source's.
    """
    inputs, source, labels = samples["inputs"], samples["logits"], samples.get("labels")
    measure = measure_of(expected.get("task", "classify"))
    _check_interface(runtime, samples, expected)
    # A third of the samples at a time, or fewer of large ones, is a batch that nobody compiled for where it is free.
    sizes = [runtime.batch] if runtime.batch else [_some(inputs), 1]
    logits = _in_batches(runtime, inputs, sizes[0])
    _check_shape(logits, source)
    real, first = _real(samples, measure), head(inputs, SECOND)
    others = [_in_batches(runtime, first, size) for size in sizes[1:]]
    others += [
        found
        for found in (_through_bytes(runtime, first, expected), _through_strings(runtime, samples))
        if found is not None
    ]
    difference = np.abs(logits - source)[real]
    largest = [np.abs(found - source[:SECOND])[real[:SECOND]].max() for found in others]
    figures = {
        "max": float(np.max([difference.max(), *largest])),
        "mean": float(difference.mean()),
        **_shares(measure, logits[real], source[real], None if labels is None else labels[real]),
        **(compare_written(runtime, samples) if isinstance(runtime, Generator) else {}),
    }
    figures["relative"] = figures["max"] / measure.size(source[real])
    tolerance = measure.allowed(tolerance if labels is not None else _eased(tolerance, len(source)))
    passed, known = _keeps(figures, tolerance), {"figure": measure.figure, "tolerance": tolerance}
    return Parity(n=len(source), batches=tuple(sizes), passed=passed, **known, **figures)


def _some(inputs: Any) -> int:
    """Return a batch that is not 1: a third of the examples, or as many of large ones as leave memory small."""
    third, fits = max(2, count_of(inputs) // 3), fitting(inputs)
    return third if fits >= FEW else min(third, fits)


def _real(samples: dict[str, Any], measure: Measure) -> Any:
    """Return which answers are compared."""
    if "labels" in samples:
        return measure.judged(samples["labels"])
    return samples.get("real", np.ones(samples["logits"].shape[:-1], bool))


def _eased(tolerance: Tolerance, count: int) -> Tolerance:
    """Return what is allowed on a few examples without labels: where not all answers must agree, one may differ."""
    if tolerance.agreement >= 1.0:
        return tolerance
    return dataclasses.replace(tolerance, agreement=min(tolerance.agreement, 1 - 1 / count))


def _shares(measure: Measure, logits: Any, source: Any, labels: Any) -> dict[str, Any]:
    """Return agreement and accuracies, which are None where there are no labels."""
    if labels is not None:
        return measure.shares(logits, source, labels)
    return {**measure.shares(logits, source, source.argmax(-1)), "accuracy": None, "source_accuracy": None}


def _keeps(figures: dict[str, Any], tolerance: Tolerance) -> bool:
    """Tell whether figures are within a tolerance."""
    return (
        # A comparison with NaN is false, so that an artifact that yields it fails here.
        figures["relative"] <= tolerance.relative
        and (figures["agreement"] is None or figures["agreement"] >= tolerance.agreement)
        and (figures["accuracy"] is None or figures["source_accuracy"] - figures["accuracy"] <= tolerance.drop + 1e-9)
        # Where every answer must agree, so must every token that is written.
        and (figures.get("sequences_equal", 1.0) >= 1.0 or tolerance.agreement < 1.0)
    )


def require(parity: Parity, what: str) -> None:
    """Raise ParityError with the figures unless the comparison passed."""
    if parity.passed:
        return
    t = parity.tolerance
    written = "" if parity.sequences_equal is None else f"same sequences {parity.sequences_equal:.4f}, "
    same = {"accuracy": "same top-1", "mean_average_precision": "same labels"}.get(parity.figure, "")
    same = f"{same} {parity.agreement:.4f} (at least {t.agreement:g}), " if same else ""
    whole = "range of the values" if parity.agreement is None else "largest logit"
    judged = "no labels"
    if parity.accuracy is not None:
        name, against = parity.figure.replace("_", " "), f"against {parity.source_accuracy:.4f}"
        judged = f"{name} {parity.accuracy:.4f} {against} (may lose {t.drop:g})"
    raise ParityError(
        f"{what} is not equal to its source on {parity.n} test examples: largest difference {parity.relative:.3g} of "
        f"the {whole} (allowed {t.relative:g}), {same}{written}{judged}"
    )


def _check_interface(runtime: Runtime, samples: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise ParityError if the artifact's names, shapes or metadata are not the source's."""
    if runtime.metadata != expected:
        raise ParityError(f"The artifact's own metadata must be its source's. Received: {str(runtime.metadata)[:200]}")
    if isinstance(runtime, Generator):
        check_parts(runtime, samples)
        return
    found = [
        (runtime.inputs, expected["input"], samples["inputs"]),
        (runtime.outputs, expected["output"], samples["logits"]),
    ]
    for tensors, name, array in found:
        if [t.name for t in tensors] != [name]:
            raise ParityError(
                f"The artifact must have one tensor {name!r} there. Received: {[t.name for t in tensors]}"
            )
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
    return np.concatenate([runtime(head(inputs, size, first)) for first in range(0, count_of(inputs), size)])


def _through_bytes(runtime: Runtime, inputs: Any, expected: dict[str, Any]) -> Any:
    """Run the inputs as encoded PNGs where the artifact takes such; None where it does not."""
    if isinstance(inputs, dict) or inputs.ndim != 4 or inputs.shape[-1] not in (1, 3, 4):
        return None
    crop = expected.get("preprocessing", {}).get("crop", 1.0)
    return runtime.classify_bytes([encode_png(framed(image, crop)) for image in inputs])


def _through_strings(runtime: Runtime, samples: dict[str, Any]) -> Any:
    """Run the texts that the first inputs come from, where they are known and the artifact takes such."""
    return runtime.classify_strings([str(text) for text in samples["texts"]]) if "texts" in samples else None


def framed(image: Any, crop: float) -> Any:
    """Return an image (height, width, channels) in a frame that resizing to size / crop and cropping cut off again."""
    sides = [(round(size / crop), size) for size in image.shape[:2]]
    around = [((whole - size) // 2, whole - size - (whole - size) // 2) for whole, size in sides]
    return np.pad(image, [*around, (0, 0)], mode="edge")


def encode_png(image: Any) -> bytes:
    """Return pixels (height, width, 1, 3 or 4) from 0 to 255 as a PNG, which loses nothing."""
    from PIL import Image

    file = io.BytesIO()
    pixels = image.astype("uint8")
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()
