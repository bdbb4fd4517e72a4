"""Prepare a float model for int8: put its kernels on the grid that every runtime reads, and correct the biases.

The model runs once on calibration data, with two copies of it in one batch: through the float layers, and through the
prepared ones. The kernel of each layer is chosen so that it computes from prepared inputs what the float layer computes
from float inputs, and the bias so that the mean of each output stays (bias correction, Nagel et al. 2019,
arXiv:1906.04721, section 4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from export.compression.batch_norm_folding import fold
from export.core.keras_graph import Change, calls, like, rebuild
from export.quantization.equalization import equalize
from export.quantization.layer_inputs import input_rows, is_supported, kernel_from_matrices, kernel_matrices
from export.quantization.options import LEARNED, PreparationOptions
from export.quantization.rounding import Moments, learn_rounding
from export.quantization.run import examples_in_memory, run_layers
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

    from export.source.source import SourceModel


def prepared(source: SourceModel, options: PreparationOptions) -> SourceModel:
    """Return the source model prepared for int8 as the options say; itself with their defaults.

    The formats of one export share it.

    Raises:
        UnsupportedExport: the model is not functional, or has a batch normalization that cannot be folded.
    """
    # Layers are selected in the folded model; those with names are found in any.
    selects = isinstance(options.exclude, int) and options.exclude > 0
    if options.rounding != LEARNED and not options.equalize and not selects:
        return source
    name = "-".join(("folded", *(("equalized",) if options.equalize else ()), options.rounding))

    def change(model: _keras.Model) -> _keras.Model:
        model = fold(model)
        examples = source.preprocessed(examples_in_memory(model))
        model = equalize(model, examples) if options.equalize else model
        return learn(model, examples) if options.rounding == LEARNED else model

    return source.derived(name, change)


def learn(model: _keras.Model, examples: Any) -> _keras.Model:
    """Return a model with learned rounding of each kernel, and corrected biases.

    Args:
        model: a functional model without batch normalization; it is not changed.
        examples: its inputs.
    """
    learner = _Learner(model)
    doubled = keras.tree.map_structure(lambda values: keras.ops.concatenate([values, values]), examples)
    run_layers(model, doubled, learner.run)
    return rebuild(model, learner.changes)


class _Learner:
    """Runs the layers of a model on two batches in one, and collects the changes of those with kernels."""

    def __init__(self, model: _keras.Model) -> None:
        names = [call.layer.name for call in calls(model)]
        self._once = {name for name in names if names.count(name) == 1}
        self.changes: dict[str, Change] = {}

    def run(self, layer: Any, *inputs: Any, **options: Any) -> Any:
        """Return the outputs of a layer for both batches."""
        if layer.name in self._once and is_supported(layer):
            return self._learn(layer, *inputs)
        return layer(*inputs, **options)

    def _learn(self, layer: Any, inputs: Any) -> Any:
        """Choose kernel and bias of a layer; returns its outputs, those of the prepared layer second."""
        before, now = keras.ops.split(inputs, 2)
        moments = Moments.of(*(input_rows(layer, np.asarray(half)) for half in (before, now)))
        kernel, bias = _prepared_weights(layer, moments)
        changed = like(layer, use_bias=True)
        changed.build(inputs.shape)
        self.changes[layer.name] = Change(changed, [kernel, bias])
        changed.set_weights([kernel, bias])
        return keras.ops.concatenate([layer(before), changed(now)])


def _prepared_weights(layer: Any, moments: Moments) -> tuple[_np.ndarray, _np.ndarray]:
    """Return kernel and bias of a layer."""
    kernel = kernel_matrices(layer)
    learned = learn_rounding(kernel, moments)
    shift = np.einsum("gi,gic->gc", moments.means, kernel) - np.einsum("gi,gic->gc", moments.quantized_means, learned)
    bias = np.asarray(layer.bias, "float64") if layer.use_bias else 0.0
    return kernel_from_matrices(layer, learned), (bias + shift.reshape(-1)).astype("float32")
