"""The result of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a model on a split; None where the task does not have a metric.

    Args:
        split: "train", "validation" or "test".
        examples: number of examples.
        loss: mean cross-entropy, by token for text and by label for several labels; for regression the mean squared
            error in standard deviations of the training targets; for several targets their sum, by their weights.
        accuracy: fraction of correct labels, by token for text; for sequence-to-sequence the fraction of sequences
            that greedy decoding generates exactly; for several labels the fraction of correct decisions, where a logit
            above 0 predicts a label.
        token_accuracy: for sequence-to-sequence, the fraction of tokens that are correct after the correct ones before.
        mean_average_precision: for several labels the main metric, as in the papers on PASCAL VOC (mAP): the mean over
            labels of the area under the precision-recall curve, in steps and not interpolated at 11 points.
        micro_f1: for several labels, F1 of all decisions together.
        rmse: for regression, the root mean squared error in the units of the data.
        mae: for regression, the mean absolute error in the units of the data.
        r2: for regression, the fraction of explained variance, the mean over targets.
        score: for several targets the main metric: the mean of the main metrics of the targets, which are accuracy,
            mean average precision and R².
        average_precision: for several labels, the average precision of each; None for a label that no example has.
        targets: for several targets, the "task", the metrics and the number of "examples" that have it, by output.
        confusion: for classes and tags, a matrix of counts (rows: truth, columns: prediction).
    """

    split: str
    examples: int
    loss: float
    accuracy: float | None = None
    token_accuracy: float | None = None
    mean_average_precision: float | None = None
    micro_f1: float | None = None
    rmse: float | None = None
    mae: float | None = None
    r2: float | None = None
    score: float | None = None
    average_precision: Mapping[str, float | None] | None = None
    targets: Mapping[str, Mapping[str, Any]] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EvaluationResult:
        """Return the result of `to_json`."""
        rows = values.get("confusion")
        return cls(**{**values, "confusion": None if rows is None else tuple(map(tuple, rows))})

    def to_json(self) -> dict[str, Any]:
        """Return the split and the metrics of the task as JSON-safe values; `confusion` is always included."""
        values = {key: value for key, value in vars(self).items() if value is not None}
        if self.average_precision is not None:
            values["average_precision"] = dict(self.average_precision)
        if self.targets is not None:
            values["targets"] = {name: dict(found) for name, found in self.targets.items()}
        return values | {"confusion": None if self.confusion is None else [list(row) for row in self.confusion]}
