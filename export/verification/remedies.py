"""What to try if a quantized artifact is refused, from the registries of compressions and formats."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from export.compression.pipeline import parse_pipeline
from export.core.compression import QUANTIZED, Compression, compressions
from export.core.format import Format, FormatRequest, formats
from export.core.guarantees import CALIBRATED, HALVES
from export.core.options import REMEDY, Options
from export.verification.compared import Parity, passes
from zoo.common.errors import BadOption, ParityError, UnsupportedExport

# A larger `max_drop` is not proposed: such an artifact is broken.
LARGEST_DROP = 10.0


@dataclasses.dataclass(frozen=True)
class Remedy:
    """What to try if an artifact is refused.

    Args:
        text: options of `zoo export`, or what the user can provide.
        request: the format and options that `--auto` exports; None for what only the user can decide.
        pipeline: the text of its compression pipeline; "" for none.
    """

    text: str
    request: FormatRequest | None = None
    pipeline: str = ""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An artifact that failed verification.

    Args:
        request: its format and options.
        task: the task of the model.
        parity: the comparison.
        trained: whether the source is a run: its data is known, so that compressions apply and calibration is given.
        unsupported: names of the formats that the spec of the model excludes.
        pipeline: text of the compression pipeline; "" for none.
        metadata: the metadata of the model.
    """

    request: FormatRequest
    task: str
    parity: Parity
    trained: bool
    unsupported: Collection[str] = ()
    pipeline: str = ""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_calibrated(self) -> bool:
        """Whether the format has activation ranges from calibration data."""
        return _is_calibrated(self.request.format)

    def supports(self, options: Options) -> bool:
        """Return whether the model supports options of the format."""
        try:
            options.check({"task": self.task, **self.metadata})
        except BadOption:
            return False
        return True


class Refused(ParityError):
    """An artifact that failed verification, with what to try.

    Args:
        message: the message.
        parity: the comparison; None if several artifacts failed.
        remedies: what to try, the most promising first.
    """

    def __init__(self, message: str, parity: Parity | None = None, remedies: Sequence[Remedy] = ()) -> None:
        super().__init__(message)
        self.parity, self.remedies = parity, tuple(remedies)


def list_remedies(refusal: Refusal) -> list[Remedy]:
    """Return what to try, the most promising first.

    What improves the same file comes first: calibration data, options of the format, compression steps. Then come other
    formats of the same runtime, those with narrow tolerances first, and at last a larger allowed drop. There is nothing
    for a float32 format: its tolerance is exact, and an error in a conversion.
    """
    if refusal.parity.tolerance.snr is None:
        return []
    found = (_calibrations, _options, _compressions, _formats, _drops)
    return [remedy for remedies in found for remedy in remedies(refusal)]


def _calibrations(refusal: Refusal) -> Iterator[Remedy]:
    if refusal.is_calibrated and not refusal.trained:
        yield Remedy("more, and more typical, examples with --calibration")


def _options(refusal: Refusal) -> Iterator[Remedy]:
    """Yield the request with one more option each time, of those whose fields name a value as `REMEDY`."""
    request = refusal.request
    for field in dataclasses.fields(request.options):
        value = field.metadata.get(REMEDY)
        if value is None or getattr(request.options, field.name) == value:
            continue
        options = dataclasses.replace(request.options, **{field.name: value})
        if refusal.supports(options):
            request = dataclasses.replace(request, options=options)
            yield Remedy(f'--format "{request.text}"', request, refusal.pipeline)


def _compressions(refusal: Refusal) -> Iterator[Remedy]:
    """Yield the pipeline with each step of quantization that it lacks; steps for certain formats only come first."""
    found = [compressions[name] for name in compressions.names()] if refusal.trained else []
    for one in sorted(found, key=lambda one: not one.formats):
        text = f"{refusal.pipeline} | {one.name}" if refusal.pipeline else one.name
        if one.stage == QUANTIZED and _improves(one, refusal.request.format) and _is_pipeline(text):
            option = f'--compress "{text}"' if refusal.pipeline else f"--compress {text}"
            yield Remedy(option, _without_remedies(refusal.request), text)


def _without_remedies(request: FormatRequest) -> FormatRequest:
    """Return a request with the defaults of the options that a step of quantization takes the place of."""
    fields = [field for field in dataclasses.fields(request.options) if REMEDY in field.metadata]
    options = dataclasses.replace(request.options, **{field.name: field.default for field in fields})
    return dataclasses.replace(request, options=options)


def _improves(compression: Compression, fmt: Format) -> bool:
    return fmt.name in compression.formats if compression.formats else _is_calibrated(fmt)


def _is_pipeline(text: str) -> bool:
    try:
        parse_pipeline(text)
    except BadOption:
        return False
    return True


def _formats(refusal: Refusal) -> Iterator[Remedy]:
    """Yield the formats of the same runtime that are closer to the source: 16 bits, or weights alone quantized.

    Those of integers, which are the smallest, come first, and float32 only if there is no other.
    """
    now = refusal.request.format
    same = [fmt for fmt in map(formats.__getitem__, formats.names()) if fmt.load is now.load and fmt.name != now.name]
    others = [fmt for fmt in same if _is_closer(fmt, now)] or [fmt for fmt in same if fmt.tolerance.snr is None]
    for fmt in sorted(others, key=lambda fmt: (not set(fmt.guarantees) - HALVES, -(fmt.tolerance.snr or 0.0))):
        if fmt.name not in refusal.unsupported and not fmt.missing and _has_backend(fmt, refusal.task):
            request = FormatRequest(fmt, fmt.options(), refusal.request.max_drop)
            yield Remedy(f"--format {fmt.name}", request, refusal.pipeline)


def _is_closer(fmt: Format, now: Format) -> bool:
    """Return whether a format loses less than another one of its runtime, but is smaller than float32."""
    if fmt.tolerance.snr is None:
        return False
    allowed, known = fmt.tolerance.relative, now.tolerance.relative
    return allowed < known or (_is_calibrated(now) and not _is_calibrated(fmt) and fmt.tolerance == now.tolerance)


def _has_backend(fmt: Format, task: str) -> bool:
    try:
        fmt.backend(task)
    except UnsupportedExport:
        return False
    return True


def _is_calibrated(fmt: Format) -> bool:
    return bool(CALIBRATED & set(fmt.guarantees))


def _drops(refusal: Refusal) -> Iterator[Remedy]:
    """Yield the smallest `--max-drop` with which the artifact passes, if it is a loss to accept."""
    own = refusal.request.format.backend(refusal.task).tolerance
    for tenths in range(math.ceil(1000 * own.drop), round(10 * LARGEST_DROP) + 1):
        if passes(refusal.parity, own.with_max_drop(tenths / 10), refusal.task):
            yield Remedy(f"--max-drop {tenths / 10:g}")
            return
