"""Opens the source of an export: a trained run, a model of the registry with weights, or a Keras model of the user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.source.job import ExportJob, RegistryJob, RunJob
from export.source.keras_model.job import is_keras_file, open_keras_job
from export.source.request import RegistryRequest
from training.runs.run import Run
from zoo.common.errors import BadOption
from zoo.specs.registry import models
from zoo.weights.references import is_repository, is_transformers_folder, split_tag


def open_job(
    source: Any,
    *,
    weights: str | os.PathLike[str] | None = None,
    calibration: Any = None,
    labels: Any = None,
    out: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> ExportJob:
    """Return the job for a source; for the arguments see `export.convert`.

    Raises:
        BadOption: the source is not supported, or an argument does not apply to it.
    """
    if _is_model(source) or (isinstance(source, (str, os.PathLike)) and is_keras_file(source)):
        _refuse("a Keras model, which has its own", weights=weights)
        return open_keras_job(source, calibration, labels, out, options or {})
    if not isinstance(source, (Run, str, os.PathLike)):
        raise BadOption(
            "source must be a trained run, its directory, a keras.Model or its .keras file, or the name of a registry "
            f"model with weights. Received: source={type(source).__name__}."
        )
    _refuse("runs and registry models, which have their own", labels=labels)
    if is_registry_name(source):
        texts = ("" if value is None else os.fspath(value) for value in (weights, calibration))
        request = RegistryRequest.locate(str(source), *texts, dict(options or {}))
        return RegistryJob(request, Path(out or Path("exports") / request.name))
    _refuse("runs", weights=weights, calibration=calibration, out=out, options=options)
    return RunJob(source if isinstance(source, Run) else Run.open(source))


def is_registry_name(source: Any) -> bool:
    """Return whether a source is the name of a registry model, or has its own weights as `zoo.get` takes them.

    An existing path is a run, unless it is a folder of weights.
    """
    if not isinstance(source, str) or is_repository(source) or is_transformers_folder(Path(source)):
        return isinstance(source, str)
    return (source in models or split_tag(source) is not None) and not Path(source).exists()


def _is_model(source: Any) -> bool:
    """Return whether a source is a keras.Model, without importing Keras."""
    return any(kind.__name__ == "Model" and kind.__module__.startswith("keras.") for kind in type(source).__mro__)


def _refuse(kind: str, **arguments: Any) -> None:
    """Raise BadOption for an argument that does not apply to a kind of source."""
    for name, value in arguments.items():
        if value is not None and value != {}:
            raise BadOption(f"{name} does not apply to {kind}. Received: {name}={str(value)[:100]!r}. Leave it out.")
