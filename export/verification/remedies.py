"""What to try if a quantized artifact is refused, from the registries of compressions and formats."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator

from export.compression.pipeline import parse_pipeline
from export.core.compression import QUANTIZED, Compression, compressions
from export.core.format import Format, FormatRequest, formats
from export.core.guarantees import CALIBRATED
from export.core.options import REMEDY
from export.verification.parity import Parity, passes
from zoo.common.errors import BadOption, UnsupportedExport

# A larger `max_drop` is not proposed: such an artifact is broken.
LARGEST_DROP = 10.0


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
    """

    request: FormatRequest
    task: str
    parity: Parity
    trained: bool
    unsupported: Collection[str] = ()
    pipeline: str = ""

    @property
    def is_calibrated(self) -> bool:
        """Whether the format has activation ranges from calibration data."""
        return _is_calibrated(self.request.format)


def list_remedies(refusal: Refusal) -> list[str]:
    """Return what to try, as options of `zoo export`, the most promising first.

    What improves the same file comes first: calibration data, options of the format, compression steps. Then come other
    formats of the same runtime, those with narrow tolerances first, and at last a larger allowed drop. There is nothing
    for a float format: its tolerance is exact, and an error in a conversion.
    """
    if refusal.parity.tolerance.snr is None:
        return []
    found = (_calibrations, _options, _compressions, _formats, _drops)
    return [text for remedies in found for text in remedies(refusal)]


def _calibrations(refusal: Refusal) -> Iterator[str]:
    if refusal.is_calibrated and not refusal.trained:
        yield "more, and more typical, examples with --calibration"


def _options(refusal: Refusal) -> Iterator[str]:
    """Yield the request with each option whose field names a value as `REMEDY`."""
    request = refusal.request
    for field in dataclasses.fields(request.options):
        value = field.metadata.get(REMEDY)
        if value is not None and getattr(request.options, field.name) != value:
            options = dataclasses.replace(request.options, **{field.name: value})
            yield f'--format "{dataclasses.replace(request, options=options).text}"'


def _compressions(refusal: Refusal) -> Iterator[str]:
    """Yield the pipeline with each step of quantization that it lacks; steps for certain formats only come first."""
    found = [compressions[name] for name in compressions.names()] if refusal.trained else []
    for one in sorted(found, key=lambda one: not one.formats):
        text = f"{refusal.pipeline} | {one.name}" if refusal.pipeline else one.name
        if one.stage == QUANTIZED and _improves(one, refusal.request.format) and _is_pipeline(text):
            yield f'--compress "{text}"' if refusal.pipeline else f"--compress {text}"


def _improves(compression: Compression, fmt: Format) -> bool:
    return fmt.name in compression.formats if compression.formats else _is_calibrated(fmt)


def _is_pipeline(text: str) -> bool:
    try:
        parse_pipeline(text)
    except BadOption:
        return False
    return True


def _formats(refusal: Refusal) -> Iterator[str]:
    """Yield the formats of the same runtime that are closer to the source: 16 bits, or weights alone quantized."""
    now = refusal.request.format
    others = [fmt for fmt in map(formats.__getitem__, formats.names()) if _is_closer(fmt, now)]
    for fmt in sorted(others, key=lambda fmt: (fmt.tolerance.snr is None, -(fmt.tolerance.snr or 0.0))):
        if fmt.name not in refusal.unsupported and not fmt.missing and _has_backend(fmt, refusal.task):
            yield f"--format {fmt.name}"


def _is_closer(fmt: Format, now: Format) -> bool:
    """Return whether a format of the same runtime loses less than another, but is smaller than float32."""
    if fmt.name == now.name or fmt.load is not now.load or fmt.tolerance.agreement >= 1.0:
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


def _drops(refusal: Refusal) -> Iterator[str]:
    """Yield the smallest `--max-drop` with which the artifact passes, if it is a loss to accept."""
    own = refusal.request.format.backend(refusal.task).tolerance
    for tenths in range(math.ceil(1000 * own.drop), round(10 * LARGEST_DROP) + 1):
        if passes(refusal.parity, own.with_max_drop(tenths / 10), refusal.task):
            yield f"--max-drop {tenths / 10:g}"
            return
