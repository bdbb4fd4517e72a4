"""The error that int8 adds in each layer of a model, on its own: what to exclude from quantization."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import calls, like
from export.quantization.grid import round_to_nearest, scales_of
from export.quantization.layer_inputs import is_supported, kernel_from_matrices, kernel_matrices
from export.quantization.options import QuantizationOptions
from export.quantization.prepare import prepared
from export.quantization.run import examples_in_memory, run_layers
from export.quantization.selection import LEVELS, quantized_outputs
from export.quantization.write import signal_to_noise
from zoo.common import compat
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

    from export.source.source import SourceModel

EXAMPLES = 16


@dataclasses.dataclass(frozen=True)
class LayerError:
    """What int8 adds in one layer, all others in float32.

    Args:
        layer: its name, for the option `exclude` of the int8 formats.
        kind: its class.
        model_snr: signal-to-noise ratio of the model's outputs in dB; the lower, the more it costs.
        layer_snr: signal-to-noise ratio of the layer's own output in dB.
        weights: number of its weights in int8; 0 if its output alone is quantized.
    """

    layer: str
    kind: str
    model_snr: float
    layer_snr: float
    weights: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON-safe values."""
        return dataclasses.asdict(self)


def layer_errors(source: SourceModel) -> list[LayerError]:
    """Return the layers that int8 changes, those that cost most first.

    Batch normalization is folded as the formats do it. A layer's kernel has a scale for each channel, and its output
    256 steps between its extremes on the examples; an activation counts as part of the layer before it.

    Raises:
        UnsupportedExport: the model is not functional, or has a batch normalization that cannot be folded.
    """
    _check_layers(source.inner)
    model = prepared(source, QuantizationOptions(exclude=1)).inner
    examples = source.preprocessed(examples_in_memory(model, EXAMPLES))
    outputs: dict[str, Any] = {}
    expected = _arrays(run_layers(model, examples, _keeping(outputs)))
    quantized = set(quantized_outputs(model))
    found = [
        _error(model, examples, expected, layer, outputs.get(layer.name) if layer.name in quantized else None)
        for layer in {call.layer.name: call.layer for call in calls(model) if call.inputs}.values()
        if layer.name in quantized or is_supported(layer)
    ]
    return sorted(found, key=lambda error: error.model_snr)


def _check_layers(model: _keras.Model) -> None:
    """Raise UnsupportedExport for a model inside a model that is not functional: its layers cannot be changed alone."""
    for call in calls(model):
        if isinstance(call.layer, keras.Model) and not compat.is_functional(call.layer):
            raise UnsupportedExport(
                f"Expected a functional model, keras.Model(inputs, outputs). Received: {call.layer.name}, a "
                f"{type(call.layer).__name__}. Exclude layers of it by their names and compare the artifacts."
            )


def _keeping(outputs: dict[str, Any]) -> Callable[..., Any]:
    """Return what runs a layer, and keeps its outputs, one or a list."""

    def run(layer: Any, *inputs: Any, **options: Any) -> Any:
        found = layer(*inputs, **options)
        outputs[layer.name] = keras.tree.map_structure(np.asarray, found)
        return found

    return run


def _error(model: _keras.Model, examples: Any, expected: Any, layer: Any, seen: Any) -> LayerError:
    """Return the error of one layer; `seen` are its outputs in float32, None if they are not quantized."""
    weights = _rounded_weights(layer) if is_supported(layer) else None
    changed = layer
    if weights is not None:
        changed = like(layer)
        changed.build(layer.input.shape)
        changed.set_weights(weights)
    own: list[float] = []

    def run(one: Any, *inputs: Any, **options: Any) -> Any:
        if one is not layer:
            return one(*inputs, **options)
        exact = one(*inputs, **options)
        found = exact if changed is one else changed(*inputs, **options)
        if seen is not None:
            found = keras.tree.map_structure(_rounded, found, seen)
        own.append(signal_to_noise(_arrays(found), _arrays(exact)))
        return found

    found = _arrays(run_layers(model, examples, run))
    count = 0 if weights is None else int(weights[0].size)
    return LayerError(layer.name, type(layer).__name__, signal_to_noise(found, expected), min(own), count)


def _rounded_weights(layer: Any) -> list[_np.ndarray]:
    """Return the weights of a layer with the kernel on the grid of int8."""
    kernel = kernel_matrices(layer)
    scales = scales_of(kernel)
    rounded = kernel_from_matrices(layer, round_to_nearest(kernel, scales) * scales)
    return [rounded, *layer.get_weights()[1:]]


def _rounded(tensor: Any, seen: _np.ndarray) -> Any:
    """Return a tensor in steps between the extremes of the values seen and zero; integers as they are."""
    if seen.dtype.kind != "f":
        return tensor
    found = keras.ops.convert_to_tensor(_on_grid(np.asarray(tensor), seen))
    compat.set_mask(found, compat.get_mask(tensor))
    return found


def _on_grid(values: _np.ndarray, seen: _np.ndarray) -> _np.ndarray:
    low, high = min(0.0, float(seen.min())), max(0.0, float(seen.max()))
    step = (high - low) / (LEVELS - 1) or 1.0
    zero = round(-low / step)
    codes = np.clip(np.rint(values / step) + zero, 0, LEVELS - 1)
    return ((codes - zero) * step).astype(values.dtype)


def _arrays(outputs: Any) -> Any:
    """Return outputs as arrays: one, or by name or place."""
    found = keras.tree.map_structure(np.asarray, outputs)
    if isinstance(found, (list, tuple)):
        return found[0] if len(found) == 1 else dict(enumerate(found))
    return dict(found) if isinstance(found, Mapping) else found
