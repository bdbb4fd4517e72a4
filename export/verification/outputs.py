"""Parity of a model for several targets: each output is compared in its own scale, and all of them must pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from export.core.tolerance import Tolerance
from export.verification.compared import Compared, Parity
from export.verification.gate import EXACT
from zoo.common.lazy import np
from zoo.specs.tasks import task_of

# What decides, and the metric, where outputs differ in them.
EACH, SCORE = "each output", "score"


def compare_outputs(
    found: tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]],
    samples: Mapping[str, Any],
    tolerance: Tolerance,
    outputs: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
) -> Parity:
    """Return the comparison of the outputs of an artifact with those of its source model.

    Args:
        found: outputs of the artifact by name, and those of the first examples through other batches and inputs.
        samples: the source model's "logits" by name, and raw "labels" (n, columns), NaN where missing.
        tolerance: the format's.
        outputs: name, task and labels of each, as in the metadata of the artifact.
        sizes: the batch sizes that were run.
    """
    arrays, others = found
    parts, first = {}, 0
    for output in outputs:
        name, task, source = output["name"], output["task"], samples["logits"][output["name"]]
        columns = task_of(task).columns(output["labels"])
        labels, labeled = _labels(samples.get("labels"), slice(first, first + columns), task)
        every = np.ones(len(source), bool)
        some = [other[name] for other in others]
        compared = Compared(arrays[name], source, labels, every, some, {}, labeled)
        parts[name] = dataclasses.replace(compared.parity(task, tolerance, sizes), task=task)
        first += columns
    return _merged(parts)


def _labels(labels: Any, place: slice, task: str) -> tuple[Any, Any]:
    """Return the labels of one output, and which examples have one; None without labels."""
    if labels is None:
        return None, None
    own = labels[:, place]
    labeled = ~np.isnan(own).any(1)
    if task_of(task).numbers:
        return own, labeled
    filled = np.where(np.isnan(own), -1, own).astype("int64")
    return (filled if task_of(task).marks else filled[:, 0]), labeled


def _merged(parts: Mapping[str, Parity]) -> Parity:
    """Return one comparison for all outputs; see `Parity`."""
    each = list(parts.values())
    worst = max(each, key=lambda part: part.relative)
    decided = EXACT if all(part.decided_by == EXACT for part in each) else EACH
    enough = None if all(part.enough is None for part in each) else all(part.enough is not False for part in each)
    return dataclasses.replace(
        worst,
        passed=all(part.passed for part in each),
        failed=tuple(dict.fromkeys(limit for part in each for limit in part.failed)),
        decided_by=decided,
        enough=enough,
        snr=min(part.snr for part in each),
        agreement=_lowest(part.agreement for part in each),
        weighted_agreement=_lowest(part.weighted_agreement for part in each),
        metric=SCORE,
        **_means(each),
        mae=None,
        source_mae=None,
        task="",
        outputs=dict(parts),
    )


def _lowest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _means(parts: Sequence[Parity]) -> dict[str, Any]:
    """Return the means of the metrics and their losses; a loss by chance is that of any output (Bonferroni)."""
    known = [part for part in parts if part.accuracy is not None]
    if not known:
        return dict.fromkeys(("accuracy", "source_accuracy", "drop", "drop_interval", "drop_p"))
    bounds = np.mean([part.drop_interval for part in known], axis=0)
    return {
        **{
            key: float(np.mean([getattr(part, key) for part in known]))
            for key in ("accuracy", "source_accuracy", "drop")
        },
        "drop_interval": bounds.tolist(),
        "drop_p": min(1.0, len(known) * min(part.drop_p for part in known)),
    }
