"""Exports of several formats; with `auto`, a refused artifact is exported again with what may help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from export.compression.pipeline import CompressionPipeline, parse_pipeline
from export.conversion.pipeline import check_request, export_each
from export.core.format import FormatRequest, parse_format
from export.source.job import ExportJob
from export.verification.artifact import Artifact
from export.verification.remedies import Refused, Remedy
from zoo.common.errors import ZooError


def export_job(
    job: ExportJob,
    names: Sequence[str],
    compression: CompressionPipeline | None = None,
    max_drop: float | None = None,
    report: Callable[[str], Any] | None = None,
) -> list[Artifact]:
    """Export to several formats through one child process; see `export.convert`.

    Args:
        job: the source.
        names: formats with their options.
        compression: the compression pipeline to apply first.
        max_drop: accuracy in points that a format may lose.
        report: receives a line for each attempt to export a refused artifact with a remedy; None for no attempts.
    """
    requests = {request.text: request for request in (parse_format(name, max_drop) for name in names)}
    for request in requests.values():
        check_request(job, request, compression)
    results = list(dict(export_each(job, requests, compression)).items())
    found = [_with_remedies(job, name, result, report) if report else result for name, result in results]
    failures = [failure for failure in found if isinstance(failure, ZooError)]
    artifacts = [artifact for artifact in found if isinstance(artifact, Artifact)]
    if failures:
        error = type(failures[0])("; ".join(map(str, failures)))
        error.completed = tuple(artifacts)
        raise error
    return artifacts


def _with_remedies(
    job: ExportJob, name: str, result: Artifact | ZooError, report: Callable[[str], Any]
) -> Artifact | ZooError:
    """Return an artifact that passes, or the first error; tries the remedies of a refused artifact in order."""
    attempts, tried, latest = [], [], result
    for remedy, request in _attempted(result):
        attempts.append({"tried": tried[-1] if tried else name, **_outcome(latest)})
        report(f"{attempts[-1]['tried']} is refused: {_reason(latest)}. Trying {remedy.text}")
        tried.append(remedy.text)
        latest = _export(job, request, remedy.pipeline, attempts)
        if isinstance(latest, Artifact):
            return latest
    if not tried:
        return result
    report(f"{tried[-1]} is refused: {_reason(latest)}")
    return Refused(f"{result} Tried without success: {'; '.join(tried)}")


def _attempted(result: Artifact | ZooError) -> Iterator[tuple[Remedy, FormatRequest]]:
    """Yield the remedies of a refused artifact that need nothing from the user."""
    for remedy in result.remedies if isinstance(result, Refused) else ():
        if remedy.request is not None:
            yield remedy, remedy.request


def _export(
    job: ExportJob, request: FormatRequest, pipeline: str, attempts: Sequence[Mapping[str, Any]]
) -> Artifact | ZooError:
    """Return the artifact of a request, or its error."""
    compression = parse_pipeline(pipeline) if pipeline else None
    try:
        check_request(job, request, compression)
        ((_, result),) = export_each(job, {request.text: request}, compression, attempts)
    except ZooError as error:
        return error
    return result


def _outcome(result: Artifact | ZooError) -> dict[str, Any]:
    """Return the metrics of a refused artifact, or another error, JSON-safe."""
    if not isinstance(result, Refused) or result.parity is None:
        return {"error": str(result)}
    names = ("failed", "snr", "weighted_agreement", "drop", "drop_interval")
    parity = result.parity.to_json()
    return {name: parity[name] for name in names}


def _reason(result: Artifact | ZooError) -> str:
    """Return the metric that decided, in a few words."""
    parity = result.parity if isinstance(result, Refused) else None
    if parity is None:
        return str(result)
    noise = f"signal-to-noise ratio {parity.snr:.1f} dB"
    if parity.drop is not None:
        return f"{parity.metric.replace('_', ' ')} lower by {100 * parity.drop:.3g} points, {noise}"
    if parity.weighted_agreement is None:
        return noise
    return f"top-1 agreement {100 * parity.weighted_agreement:.4g} % weighted by the margin of the source, {noise}"
