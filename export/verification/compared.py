"""The comparison of what an artifact and its source model compute, and whether it is within a tolerance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from export.core.samples import SECOND_PASS
from export.core.tolerance import Tolerance
from export.verification.comparable import relative_error
from export.verification.gate import deciding_metric, failed_limits, has_enough_examples
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
        relative: largest error as a fraction of the source's largest logit, or of the range of a target's values.
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
        task: the task of one of several outputs; "" for the only one.
        outputs: for several targets the comparison of each output, all of which must pass. Then the fields above are
            those of the output with the largest error, the lowest agreement and ratio, and the means of the metrics.
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
    task: str = ""
    outputs: Mapping[str, Parity] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values; without those of several outputs where there is one."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields |= {"tolerance": dataclasses.asdict(self.tolerance)}
        fields |= {"batches": list(self.batches), "failed": list(self.failed)}
        if self.outputs:
            fields["outputs"] = {name: part.to_json() for name, part in self.outputs.items()}
        optional = {"task", "outputs"}
        return {name: value for name, value in fields.items() if value or name not in optional}


@dataclasses.dataclass(frozen=True)
class Compared:
    """What an artifact and its source compute.

    Args:
        outputs: of the artifact.
        source: of the source model.
        labels: of the examples, None without any.
        valid: which predictions are compared.
        others: outputs of the first examples, through other batch sizes and inputs.
        more: further fields of a `Parity`.
        labeled: which examples have a label; None for all that are valid.
    """

    outputs: Any
    source: Any
    labels: Any
    valid: Any
    others: Sequence[Any]
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labeled: Any = None

    def parity(self, task: str, tolerance: Tolerance, sizes: Sequence[int]) -> Parity:
        """Return the comparison of one output under a task and the tolerance of a format."""
        measure, found = measure_of(task), self._metrics(measure_of(task))
        adjusted = _adjust(tolerance, found, len(self.source), task)
        failed = failed_limits(found, adjusted)
        return Parity(
            n=len(self.source),
            batches=tuple(sizes),
            tolerance=adjusted,
            passed=not failed,
            failed=failed,
            decided_by=deciding_metric(found, adjusted),
            enough=has_enough_examples(found, measure.adjust(tolerance), len(self.source)),
            **found,
        )

    def _metrics(self, measure: Measure) -> dict[str, Any]:
        """Return the fields of a `Parity` that do not depend on a tolerance."""
        valid, source = self.valid, self.source
        _check_shape(self.outputs, source)
        errors = np.abs(self.outputs - source)[valid]
        others = [np.abs(found - source[:SECOND_PASS])[valid[:SECOND_PASS]] for found in self.others]
        # Of each output; NaN remains.
        worst = np.max([part.max(0) for part in (errors, *others) if len(part)], axis=0)
        labels = None if self.labels is None else self.labels[valid]
        found = {
            "max": float(worst.max()),
            "mean": float(errors.mean()),
            "metric": measure.metric,
            "sequence_agreement": None,
            **measure.compare(self.outputs[valid], source[valid], labels, self.labeled),
            **self.more,
        }
        return found | {"relative": relative_error(worst, measure.scale(source[valid]))}


def passes(parity: Parity, tolerance: Tolerance, task: str) -> bool:
    """Return whether an artifact would be within another tolerance of its format."""
    if parity.outputs:
        return all(passes(part, tolerance, part.task) for part in parity.outputs.values())
    return not failed_limits(vars(parity), _adjust(tolerance, vars(parity), parity.n, task))


def _adjust(tolerance: Tolerance, found: dict[str, Any], count: int, task: str) -> Tolerance:
    """Return the tolerance of a format for a task; without labels, one of a few examples may have another top-1."""
    adjusted = measure_of(task).adjust(tolerance)
    if found["drop"] is not None or adjusted.agreement >= 1.0:
        return adjusted
    return dataclasses.replace(adjusted, agreement=min(adjusted.agreement, 1 - 1 / count))


def _check_shape(logits: Any, source: Any) -> None:
    if logits.shape != source.shape or str(logits.dtype) != "float32":
        raise ParityError(
            f"Expected logits of shape {source.shape} in float32. Received: {logits.shape} in {logits.dtype}"
        )
