"""Tolerances: how far an artifact may be from its source model before it is refused. One per precision."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Limits of the comparison between an artifact and its source model.

    Args:
        relative: largest allowed error of a logit, as a fraction of the source's largest logit.
        agreement: minimum fraction of examples with the source's top-1.
        drop: largest allowed loss of accuracy, as a fraction.
    """

    relative: float
    agreement: float
    drop: float

    def with_max_drop(self, points: float | None) -> Tolerance:
        """Return the tolerance under a user's `max_drop` in points of accuracy; None keeps the format's own.

        Float formats allow no loss and ignore `max_drop`. Each point that is allowed beyond `drop` lowers the minimum
        agreement by one point too.
        """
        if points is None or not self.drop:
            return self
        more = max(0.0, points / 100 - self.drop)
        return dataclasses.replace(self, drop=points / 100, agreement=max(0.0, self.agreement - more))

    def for_sequences(self) -> Tolerance:
        """Return the tolerance for sequence-to-sequence models.

        Integer attention can move to another token, which changes all logits of that step: `relative` becomes 1 and
        `agreement` limits how often this may happen.
        """
        exact = self in (FLOAT32_TOLERANCE, FLOAT16_TOLERANCE)
        return self if exact else dataclasses.replace(self, relative=1.0)


FLOAT32_TOLERANCE = Tolerance(relative=1e-4, agreement=1.0, drop=0.0)
# One of 360 images may have another top-1.
FLOAT16_TOLERANCE = Tolerance(relative=1e-2, agreement=0.995, drop=0.003)
INT16_TOLERANCE = Tolerance(relative=0.05, agreement=0.99, drop=0.006)
# `relative` only catches broken files: one example in a thousand is off by a quarter where attention is undecided.
# Agreement and accuracy decide.
INT8_TOLERANCE = Tolerance(relative=0.5, agreement=0.97, drop=0.006)
# Models with few weights lose up to 1.7 points with 4-bit weights and none with 8-bit ones.
INT4_TOLERANCE = Tolerance(relative=0.5, agreement=0.95, drop=0.02)
