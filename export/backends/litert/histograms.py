"""Narrower calibration ranges for the tensors of a float32 .tflite file, from the histograms of their values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.runtime import interpreter
from export.core.metadata import input_names, output_names
from export.quantization.options import MINMAX
from export.quantization.ranges import Histogram, choose_ranges
from zoo.common.lazy import np, quiet_libraries

if TYPE_CHECKING:
    import numpy as _np

    from export.source.source import SourceModel


def tighten(ranges: dict[str, Any], path: Path, source: SourceModel, method: str) -> None:
    """Replace the ranges of activations by those of a calibration method; inputs and outputs keep theirs.

    Args:
        ranges: the smallest and largest values of each tensor, which are changed.
        path: the float32 file.
        source: its source model.
        method: one of `export.quantization.ranges.METHODS`.
    """
    if method == MINMAX:
        return
    kept = {*input_names(source.metadata), *output_names(source.metadata)}
    histograms = {
        name: Histogram.over((float(np.min(found["min"])), float(np.max(found["max"]))))
        for name, found in ranges.items()
        if name not in kept
    }
    for name, values in _activations(path, source, set(histograms)):
        histograms[name].add(values)
    filled = {name: histogram for name, histogram in histograms.items() if histogram.counts.any()}
    for name, found in choose_ranges(filled, method).items():
        for key, value in zip(("min", "max"), found, strict=True):
            ranges[name][key] = np.full_like(ranges[name][key], value)


def _activations(path: Path, source: SourceModel, names: set[str]) -> Iterator[tuple[str, _np.ndarray]]:
    """Yield the values of the tensors of a file that are activations, for each batch of calibration data."""
    resolver = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate does not keep tensors
    with quiet_libraries():
        opened = interpreter.Interpreter(
            model_path=str(path), experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True
        )
        opened.allocate_tensors()
    given, (part,) = {detail["name"]: detail for detail in opened.get_input_details()}, source.parts
    found = [detail for detail in opened.get_tensor_details() if detail["name"] in names]
    for feed in source.feeds(part, next(iter(given.values()))["shape"][0]):
        for name, values in feed.items():
            opened.set_tensor(given[name]["index"], values)
        opened.invoke()
        for detail in found:
            yield detail["name"], opened.get_tensor(detail["index"])
