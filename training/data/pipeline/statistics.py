"""Statistics of the training split: for the normalization of inputs and of regression targets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from training.data.dataset import Dataset, Split, TargetScale
from training.data.outputs import Output, label_slices
from training.data.pipeline.encoders import make_encoder
from training.data.pipeline.encoding import Encoder, TableEncoder
from zoo.common.errors import DataError
from zoo.common.lazy import np
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.tasks import task_of

if TYPE_CHECKING:
    import numpy as _np

# Values in a batch.
VALUES = 1 << 23


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean, variance, minimum and maximum of the values of each channel, or column.

    Args:
        count: number of values of each.
        mean: float64 (channels,).
        squares: sums of squared differences from the mean, float64 (channels,).
        low: minimum, float64 (channels,).
        high: maximum, float64 (channels,).
    """

    count: int
    mean: _np.ndarray
    squares: _np.ndarray
    low: _np.ndarray
    high: _np.ndarray

    @property
    def std(self) -> _np.ndarray:
        """Return the population standard deviation, as NumPy's; float64 (channels,)."""
        return np.sqrt(self.squares / self.count)

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both (Chan, Golub and LeVeque 1979), numerically stable for any number of values."""
        count, apart = self.count + other.count, other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def over_all(self) -> Moments:
        """Return the moments over all channels, each (1,)."""
        parts = [
            Moments(self.count, *(array[i : i + 1] for array in (self.mean, self.squares, self.low, self.high)))
            for i in range(len(self.mean))
        ]
        found = parts[0]
        for part in parts[1:]:
            found = found.merged(part)
        return found


def moments(values: Any) -> Moments:
    """Return the moments of values (..., channels), computed in float64."""
    values = np.asarray(values, "float64")
    values = values.reshape(-1, values.shape[-1])
    mean = values.mean(0)
    return Moments(len(values), mean, ((values - mean) ** 2).sum(0), values.min(0), values.max(0))


def streamed(batches: Any) -> Moments:
    """Return the moments of batches of values (n, ..., channels), one batch in memory at a time."""
    found: Moments | None = None
    for batch in batches:
        part = moments(batch)
        found = part if found is None else found.merged(part)
    if found is None:
        raise ValueError("Expected at least one batch.")
    return found


def _minmax(found: Moments) -> tuple[Any, Any]:
    return found.low, found.high - found.low


def _deviations(found: Moments) -> tuple[Any, Any]:
    return found.mean, found.std


# (mean, std) from moments, and whether all channels of images share them, by the value of `data.normalize`.
NORMALIZATIONS: dict[str, tuple[Callable[[Moments], tuple[Any, Any]], bool]] = {
    "minmax": (_minmax, True),
    "zscore": (_deviations, True),
    "channel": (_deviations, False),
}


# Normalizations by order statistics, which need all values at once: of tables, which are in memory.
TABLES_ONLY = ("robust",)


def compute_normalization(
    dataset: Dataset, shape: tuple[int, ...], preprocessing: PreprocessingConfig, normalization: str
) -> PreprocessingConfig:
    """Return a preprocessing config with mean and std of the training split.

    Args:
        dataset: the examples.
        shape: of one example as an array.
        preprocessing: how images are resized and cropped.
        normalization: "minmax" to 0..1, images by their minimum and maximum, tables by column; "zscore" to mean 0 and
            standard deviation 1 over all values; "channel" the same by channel, or by column. Indicators of a table
            (one-hot categories and missing values) stay 0 or 1. "robust", of tables, to a median of 0 and quartiles
            that are 1 apart, or where these are equal to minimum and maximum 2 apart (arXiv:2407.04491, section 3.1).

    Returns:
        The config; the std of constant values is 1.
    """
    encoder = make_encoder(dataset, shape, preprocessing, None)
    if normalization in TABLES_ONLY:
        mean, std = _robust(encoder)
        return dataclasses.replace(preprocessing, mean=mean, std=std)
    formula, together = NORMALIZATIONS[normalization]
    found = streamed(_batches(encoder, max(1, min(VALUES // math.prod(shape), dataset.splits["train"].count))))
    numbers = np.array(dataset.table.is_number() if dataset.table else [True] * shape[-1])
    found = _of_channels(found, numbers)
    if together and not (dataset.table and normalization == "minmax"):
        found = found.over_all()
    mean, std = formula(found)
    std = np.where(std > 0, std, 1.0)
    if dataset.table:
        mean, std = _scatter(mean, numbers, 0.0), _scatter(std, numbers, 1.0)
    return dataclasses.replace(preprocessing, mean=tuple(map(float, mean)), std=tuple(map(float, std)))


def _robust(encoder: TableEncoder) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return median and distance of the quartiles of the numbers of a table, 0 and 1 for its indicators."""
    slots, numbers = encoder.dataset.table.slots, encoder.dataset.table.is_number()
    rows, found = encoder.rows("train"), []
    for place, fill, known in zip(slots.places, slots.constants, numbers, strict=True):
        values = rows[:, place].astype("float64") if known else np.zeros(1)
        values = np.where(np.isnan(values), fill, values)
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        spread = (high - low) or np.ptp(values) / 2 or 1.0
        found.append((float(middle) * known, float(spread) if known else 1.0))
    mean, std = zip(*found, strict=True)
    return mean, std


def _batches(encoder: Encoder, size: int) -> Iterator[Any]:
    """Yield raw batches of the training split."""
    if not isinstance(encoder, TableEncoder):
        batches = encoder.decoded(encoder.dataset.splits["train"].examples).batch(size)
        yield from (x for x, _ in batches.as_numpy_iterator())
        return
    rows = encoder.rows("train")
    for low in range(0, len(rows), size):
        yield encoder.raw(rows[low : low + size]).numpy()


def _of_channels(found: Moments, wanted: Any) -> Moments:
    """Return the moments of some channels; without any, those of a constant 0."""
    if not wanted.any():
        return moments(np.zeros((1, 1)))
    return Moments(found.count, *(array[wanted] for array in (found.mean, found.squares, found.low, found.high)))


def _scatter(values: Any, wanted: Any, other: float) -> Any:
    """Return values at the positions where `wanted` is true, `other` elsewhere."""
    whole = np.full(len(wanted), other)
    whole[wanted] = values if wanted.any() else whole[wanted]
    return whole


def compute_target_scale(dataset: Dataset) -> TargetScale:
    """Return mean and standard deviation of the training targets of a regression; raises DataError."""
    split = dataset.splits["train"]
    if dataset.outputs:
        return _scale_of_outputs(dataset.outputs, split)
    # TensorFlow calls a function that it maps once for each place of a batch, also beyond the last example.
    found = streamed(split.labels().batch(min(VALUES, split.count)).as_numpy_iterator())
    std = np.where(found.std > 0, found.std, 1.0)
    return TargetScale(tuple(map(float, found.mean)), tuple(map(float, std)))


def _scale_of_outputs(outputs: Sequence[Output], split: Split) -> TargetScale:
    """Return mean and standard deviation of each column of raw labels that is a number, 0 and 1 of the others."""
    rows = split.labels().batch(min(VALUES, split.count)).as_numpy_iterator()
    values = np.concatenate(list(rows)).astype("float64")
    mean, std = np.zeros(values.shape[1]), np.ones(values.shape[1])
    for output, place in label_slices(outputs):
        if task_of(output.task).numbers:
            known = values[:, place][~np.isnan(values[:, place])]
            if not len(known):
                raise DataError(
                    f"Expected training examples of every target. Received: {output.target!r} without any number in "
                    "the training split. Leave it out of data.target, or add rows."
                )
            mean[place], std[place] = known.mean(), known.std() or 1.0
    return TargetScale(tuple(map(float, mean)), tuple(map(float, std)))
