"""Diagnose a run from its stored metrics, measured steps and confusion matrix.

Every check needs a symptom that a healthy run does not have; an unusual number alone is no finding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from training.monitor.epoch_checks import (
    check_classes,
    check_diverged,
    check_overfitting,
    check_starving,
    check_underfitting,
)
from training.monitor.findings import Diagnosis, Evidence, Finding
from training.monitor.step_checks import (
    check_dead,
    check_exploding,
    check_learning_rate,
    check_saturated,
    check_vanishing,
    check_zero_weights,
)
from training.runs.run import Run
from zoo.common.errors import RunError

# Most severe first.
CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    check_diverged,
    check_zero_weights,
    check_exploding,
    check_vanishing,
    check_dead,
    check_saturated,
    check_learning_rate,
    check_overfitting,
    check_underfitting,
    check_classes,
    check_starving,
)


def diagnose_run(run: Run) -> Diagnosis:
    """Diagnose a run, finished or not.

    Raises:
        RunError: the run has stored nothing yet.
    """
    evidence = _read(run)
    if not (evidence.rows or evidence.steps or evidence.failures):
        raise RunError(
            f"Expected a run with at least one measured step. Received: run={str(run.path)!r}, which has no metrics. "
            f"Run: zoo train --resume {run.path}"
        )
    return Diagnosis(
        run=str(run.path),
        finished=run.finished,
        epochs=len(evidence.rows),
        measurements=len(evidence.steps),
        findings=tuple(finding for check in CHECKS for finding in check(evidence)),
    )


def _whole_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows that all have the same entries, NaN for one that a row lacks, as in a damaged file.

    There is a loss, and for a metric of the validation split one of the training split.
    """
    keys = {"loss", *(key for row in rows for key in row)}
    keys |= {key.removeprefix("val_") for key in keys}
    return [dict.fromkeys(sorted(keys), math.nan) | row for row in rows]


def _read(run: Run) -> Evidence:
    result, rows = run.result() if run.finished else {}, run.diagnostics()
    return Evidence(
        _whole_rows(run.metrics()),
        [row for row in rows if "gradients" in row],
        [row for row in rows if "failed" in row],
        (result.get("test") or {}).get("confusion"),
        result.get("labels") or [],
    )
