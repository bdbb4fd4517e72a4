"""The decision whether an artifact is within its tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.core.tolerance import Tolerance
from export.verification.accuracy_drop import drop_of

EXACT, AGREEMENT, NOISE = "exact", "agreement", "snr"


def failed_limits(found: Mapping[str, Any], tolerance: Tolerance) -> tuple[str, ...]:
    """Return the limits that an artifact fails: "relative", "snr", "agreement", "accuracy", "sequence_agreement".

    Args:
        found: the fields of a `Parity`.
        tolerance: the tolerance; see there for its two kinds.
    """
    within = {"relative": found["relative"] <= tolerance.relative}
    within |= _exact(found, tolerance) if tolerance.snr is None else _statistical(found, tolerance, tolerance.snr)
    # A comparison with NaN is false: an artifact with NaN outputs fails here.
    return tuple(name for name, holds in within.items() if not holds)


def _exact(found: Mapping[str, Any], tolerance: Tolerance) -> dict[str, bool]:
    return {
        "agreement": found["agreement"] is None or found["agreement"] >= tolerance.agreement,
        "accuracy": _is_within_as_measured(found, tolerance),
        # If all predictions must agree, so must all generated tokens.
        "sequence_agreement": tolerance.agreement < 1.0 or found["sequence_agreement"] in (None, 1.0),
    }


def _statistical(found: Mapping[str, Any], tolerance: Tolerance, snr: float) -> dict[str, bool]:
    drop, agreement = drop_of(found), found["weighted_agreement"]
    within = {"snr": found["snr"] >= snr}
    if drop is None:
        return within | {"agreement": agreement is None or agreement >= tolerance.agreement}
    if tolerance.measured:
        return within | {"accuracy": _is_within_as_measured(found, tolerance)}
    return within | {"accuracy": not drop.exceeds(tolerance.drop)}


def _is_within_as_measured(found: Mapping[str, Any], tolerance: Tolerance) -> bool:
    return found["drop"] is None or found["drop"] <= tolerance.drop + 1e-9


def deciding_metric(found: Mapping[str, Any], tolerance: Tolerance) -> str:
    """Return what decides: "exact" limits, the name of the metric, or without labels "agreement" or "snr"."""
    if tolerance.snr is None:
        return EXACT
    if found["drop"] is not None:
        return found["metric"]
    return NOISE if found["weighted_agreement"] is None else AGREEMENT


def has_enough_examples(found: Mapping[str, Any], tolerance: Tolerance, count: int) -> bool | None:
    """Return whether the examples suffice to decide; None for an exact tolerance.

    With labels the interval of the loss must be on one side of the allowed loss. Without labels a single example may
    not be more than the fraction that may disagree.
    """
    if tolerance.snr is None:
        return None
    drop = drop_of(found)
    return 1 - 1 / count >= tolerance.agreement if drop is None else drop.is_decided(tolerance.drop)
