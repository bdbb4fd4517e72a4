"""Tolerances: how far an artifact may be from its source model before it is refused. One per precision.

A float32 format computes the same function: its tolerance is exact, and each limit holds on the compared examples. One
with fewer bits computes another function, and a few examples measure its accuracy with an error: its tolerance is
statistical, see `Tolerance`.
"""

from __future__ import annotations

import dataclasses
import math

# Outputs that have nothing to do with the source's reach 0 dB at most; `max_drop` never allows less than this.
MIN_SNR = 3.0


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Limits of the comparison between an artifact and its source model.

    Without `snr` the tolerance is exact: no error may exceed `relative`, and agreement and loss of accuracy as measured
    must be within `agreement` and `drop`.

    With `snr` it is statistical. `relative` and `snr` only catch broken files. With labels the loss of accuracy
    decides. An artifact is refused if it loses more than `drop` and an exact McNemar test on the examples where only
    one of the two is right finds a loss (one-sided, 5%), or if the interval of the loss (each bound holds with 95%) is
    above `drop`. At most one in twenty artifacts that lose nothing is refused, however few the examples. Without labels
    the agreement decides, with each example weighted by the margin between the source's two largest logits.

    Args:
        relative: largest allowed error of a logit, as a fraction of the source's largest logit.
        agreement: minimum fraction of examples with the source's top-1.
        drop: largest allowed loss of accuracy, as a fraction.
        snr: minimum signal-to-noise ratio of the logits in dB: 20 dB is an error of a tenth of the logits, 10 dB of a
            third, as root mean squares; None for an exact tolerance.
        measured: whether the loss as measured must be within `drop`, as for a user's `max_drop`, whatever a test finds.
    """

    relative: float
    agreement: float
    drop: float
    snr: float | None = None
    measured: bool = False

    def with_max_drop(self, points: float | None) -> Tolerance:
        """Return the tolerance under a user's `max_drop` in points of accuracy; None keeps the format's own.

        Float formats allow no loss and ignore `max_drop`. Each point that is allowed beyond `drop` lowers the minimum
        agreement by one point too, and the minimum signal-to-noise ratio in proportion: twice the noise changes twice
        as many predictions.
        """
        if points is None or not self.drop:
            return self
        more = max(0.0, points / 100 - self.drop)
        agreement = max(0.0, self.agreement - more)
        snr = self.snr
        if snr is not None and more:
            snr = max(MIN_SNR, snr - 20 * math.log10((1 - agreement) / (1 - self.agreement)))
        return dataclasses.replace(self, drop=points / 100, agreement=agreement, snr=snr, measured=True)

    def for_sequences(self) -> Tolerance:
        """Return the tolerance for sequence-to-sequence models.

        Integer attention can move to another token, which changes all logits of that step: `relative` becomes 1 and
        `agreement` limits how often this may happen.
        """
        return self if self.snr is None else dataclasses.replace(self, relative=1.0)


FLOAT32_TOLERANCE = Tolerance(relative=1e-4, agreement=1.0, drop=0.0)
# float16 has 41 to 69 dB. The least has a MobileNetV2 with dead channels: fine-tuned, its error is 0.012 of the largest
# logit, and one of 122 pictures has another top-1.
FLOAT16_TOLERANCE = Tolerance(relative=0.02, agreement=0.995, drop=0.003, snr=35.0)
# A random, permuted or lost layer leaves less than 5 dB; int8 artifacts have 20 to 45 dB, and those with 16-bit
# activations 16 to 45 dB, because their weights have 8 bits too: a fine-tuned MobileNetV2 has 16.5 dB, its largest
# error is 0.15, and its accuracy that of float32.
INT16_TOLERANCE = Tolerance(relative=0.3, agreement=0.99, drop=0.006, snr=15.0)
# One example in a thousand is off by a quarter of the largest logit where attention is undecided.
INT8_TOLERANCE = Tolerance(relative=0.5, agreement=0.97, drop=0.006, snr=10.0)
# Models with few weights lose up to 1.7 points with 4-bit weights and none with 8-bit ones.
INT4_TOLERANCE = Tolerance(relative=0.5, agreement=0.95, drop=0.02, snr=10.0)
