"""Writes a quantized model with what is chosen on the calibration data: the method of the ranges, float layers."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import layers_under
from export.core.samples import count_examples, predict_in_batches, take_examples
from export.quantization.options import BEST, MINMAX, PreparationOptions
from export.quantization.prepare import prepared
from export.quantization.ranges import METHODS
from export.quantization.selection import select_layers
from zoo.common.errors import BadOption, did_you_mean
from zoo.common.lazy import np

if TYPE_CHECKING:
    from export.source.source import SourceModel

HELD_BACK, MOST = 4, 32  # one of so many calibration examples is held back, at most so many
SELECTION_EXAMPLES = 8  # whose layer outputs are all in memory


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What is chosen on the calibration data.

    Args:
        calibration: the method of `export.quantization.ranges`.
        excluded: layers that stay float32.
        layers: all layers of the model, if some are excluded: their names tell those of operators apart.
    """

    calibration: str = MINMAX
    excluded: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


def write_quantized(
    write: Callable[[SourceModel, Path, Chosen], None],
    load: Callable[[Path], Callable[[Any], Any]],
    source: SourceModel,
    path: Path,
    options: PreparationOptions,
) -> dict[str, Any]:
    """Write a quantized model as the options say.

    With `calibration=best` the methods are compared first: each quantizes on three quarters of the calibration
    examples, and the signal-to-noise ratio of its logits on the others counts. The best one then quantizes on all.

    Args:
        write: writes a model prepared for int8.
        load: returns a runtime for a path.
        source: the model to quantize.
        path: file or folder to write.
        options: the options of the format.

    Returns:
        What was chosen, and the signal-to-noise ratio in dB of the methods that were compared; JSON-safe.
    """
    named = named_layers(source, options.exclude) if isinstance(options.exclude, tuple) else ()
    source, ratios = prepared(source, options), {}
    excluded = named or excluded_layers(source, options.exclude)
    layers = tuple(layer.name for layer in layers_under(source.model)) if excluded else ()
    chosen = Chosen(options.calibration, excluded, layers)
    if options.calibration == BEST:
        ratios = _compare(write, load, source, path, chosen)
        chosen = dataclasses.replace(chosen, calibration=max(ratios, key=ratios.__getitem__))
    write(source, path, chosen)
    names = {"excluded": list(chosen.excluded), "layers": list(chosen.layers)}
    return {"calibration": chosen.calibration, "calibration_snr": ratios, **names}


def named_layers(source: SourceModel, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the layers whose names match one of the patterns with the wildcards * and ?.

    Raises:
        BadOption: a pattern matches none.
    """
    names = [layer.name for layer in layers_under(source.model)]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            hint = did_you_mean(pattern, names)
            raise BadOption(f"exclude must name layers of {source.model.name}. Received: exclude={pattern}. {hint}")
    return tuple(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def excluded_layers(source: SourceModel, count: int) -> tuple[str, ...]:
    """Return the layers around the `count` activations whose rounding changes the logits most."""
    return select_layers(source.inner, source.preprocessed(SELECTION_EXAMPLES), count) if count else ()


def _compare(
    write: Callable[..., None], load: Callable[..., Any], source: SourceModel, path: Path, chosen: Chosen
) -> dict[str, float]:
    """Return the signal-to-noise ratio of each method."""
    count = count_examples(source.calibration)
    held = min(MOST, max(1, count // HELD_BACK))
    part = copy.copy(source)
    part.calibration = take_examples(source.calibration, max(1, count - held))
    examples = take_examples(source.calibration, held, count - held)
    logits, ratios = predict_in_batches(source.model, examples), {}
    for method in METHODS:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            place = Path(folder) / (path.name or "model")
            write(part, place, dataclasses.replace(chosen, calibration=method))
            ratios[method] = signal_to_noise(load(place)(examples), logits)
    return ratios


def signal_to_noise(outputs: Any, expected: Any) -> float:
    """Return the signal-to-noise ratio of logits in dB, without what all classes of an example have in common.

    Of several outputs it is that of the worst.
    """
    if isinstance(expected, dict):
        return min(signal_to_noise(outputs[name], expected[name]) for name in expected)
    # In float64: an error of 0 would overflow in float32.
    expected = np.asarray(expected, "float64")
    error = np.asarray(outputs, "float64") - expected
    if expected.shape[-1] > 1:
        error, expected = (x - x.mean(axis=-1, keepdims=True) for x in (error, expected))
    return float(10 * np.log10((np.sum(expected**2) + 1e-30) / (np.sum(error**2) + 1e-30)))
