"""Trials of selective quantization: quantize a model with some layers excluded, and evaluate the file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert import file as litert_file
from export.backends.litert.calibration import calibrate, limit_masks
from export.backends.litert.options import FloatOptions, IntegerOptions
from export.backends.litert.runtime import LiteRtRuntime
from export.compression.quantization.equalization import Links
from export.core.compression import Workbench
from export.core.keras_graph import layers_under
from export.core.layer_names import layer_patterns
from export.core.quiet import quiet
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    from export.source.source import SourceModel

qtyping = LazyModule("litert_quantizer.qtyping", "litert-quantizer")
quantizer = LazyModule("litert_quantizer.quantizer", "litert-quantizer")
recipe = LazyModule("litert_quantizer.recipe", "litert-quantizer")

VALIDATION_EXAMPLES = 400
# Maximum cost of the mean error: it decides between candidates of equal accuracy.
TIE_BREAK = 1e-3
FLOAT, INT16X8 = "float", "16x8"
FALLBACKS = (FLOAT, INT16X8)


class Evaluator:
    """Evaluates quantized files on validation examples, against the source model.

    Args:
        source: the source model.
        workbench: the data.
        max_error: error of a logit, relative to the largest, that costs nothing.
        options: options of the format.

    Attributes:
        trials: number of evaluated files.
    """

    def __init__(self, source: SourceModel, workbench: Workbench, max_error: float, options: IntegerOptions) -> None:
        self.source, self.max_error, self.options, self.trials = source, max_error, options, 0
        self._inputs, self._labels = workbench.data.raw("validation", VALIDATION_EXAMPLES)
        self._logits = source.model.predict(self._inputs, verbose=0)

    def cost(self, content: bytes) -> float:
        """Return the loss of accuracy, plus the excess of the largest error, plus at most `TIE_BREAK` for the mean."""
        self.trials += 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            litert_file.finish(content, self.source.metadata, path)
            logits = LiteRtRuntime(path)(self._inputs)
        accuracy, reference = ((x.argmax(-1) == self._labels).mean() for x in (logits, self._logits))
        error = np.abs(logits - self._logits) / (np.abs(self._logits).max() + 1e-12)
        return float(reference - accuracy + max(0.0, error.max() - self.max_error) + TIE_BREAK * min(1.0, error.mean()))


class Trial:
    """Quantizes a model with some layers equalized and some excluded.

    Args:
        evaluator: evaluates the files.
        equalized: layers to equalize the channels of.
        fallback: precision of the excluded layers: "float", or "16x8" for int8 weights with int16 activations.

    Attributes:
        channel_spread: ratio of the largest to the smallest equalization scale, by equalized layer.
    """

    def __init__(self, evaluator: Evaluator, equalized: Collection[str] = (), fallback: str = FLOAT) -> None:
        source, batch = evaluator.source, evaluator.options.batch
        self._evaluator, self._fallback, self._rules = evaluator, fallback, recipe.static_wi8_ai8()
        self._content = source.artifact_path("tflite", FloatOptions(batch=batch)).read_bytes()
        names = {layer.name for layer in layers_under(source.model)}
        self._patterns = layer_patterns(litert_file.operators_of(self._content), names)
        self.channel_spread: dict[str, float] = {}
        if equalized:
            self._equalize(equalized)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(self._content)
            self._ranges = calibrate(path, source, self._rules, batch)
        self._content = limit_masks(self._content, self._ranges)

    def _equalize(self, layers: Collection[str]) -> None:
        operators, links = self.equalizable(), Links(self._content)
        spread = links.equalize(operators[name] for name in layers)
        self.channel_spread = {name: spread[operators[name]] for name in layers}
        self._content = links.content()

    def equalizable(self) -> dict[str, str]:
        """Return the layers with equalizable channels, each with the name of its operator."""
        operators = Links(self._content).found
        return {layer: name for layer, matched in self._operators().items() for name in matched if name in operators}

    def layers(self) -> list[str]:
        """Return the layers that have operators in the file."""
        return list(self._operators())

    def _operators(self) -> dict[str, tuple[str, ...]]:
        """Return the operators of each layer, by name of their outputs; fused layers count as the first one."""
        operators = [
            output_name(graph, operator)
            for graph in litert_file.read(self._content).subgraphs
            for operator in graph.operators
        ]
        layers = [layer for layer in layers_under(self._evaluator.source.model) if layer.weights]
        found: dict[tuple[str, ...], str] = {}
        # A folded normalization belongs to the layer before it and has the name of that layer.
        for layer in sorted(layers, key=lambda layer: not hasattr(layer, "kernel")):
            matched = tuple(name for name in operators if re.search(self._patterns[layer.name], name))
            if matched:
                found.setdefault(matched, layer.name)
        return {name: matched for matched, name in found.items()}

    def quantize(self, excluded: Iterable[str]) -> bytes:
        """Return the .tflite file with some layers excluded from int8."""
        tool = quantizer.Quantizer(bytearray(self._content), self._rules)
        for name in excluded:
            tool.update_quantization_recipe(
                self._patterns[name], qtyping.TFLOperationName.ALL_SUPPORTED, *self._fallback_rule()
            )
        with quiet():
            # The quantizer changes its argument.
            ranges = {name: dict(values) for name, values in self._ranges.items()}
            result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        return bytes(result.quantized_model)

    def _fallback_rule(self) -> tuple[Any, Any]:
        """Return configuration and algorithm of the excluded layers."""
        if self._fallback == FLOAT:
            return None, quantizer.AlgorithmName.NO_QUANTIZE
        (rule,) = recipe.static_wi8_ai16()
        return qtyping.OpQuantizationConfig.from_dict(rule["op_config"]), rule["algorithm_key"]

    def cost(self, excluded: Collection[str] = ()) -> float:
        """Return the cost with some layers excluded."""
        return self._evaluator.cost(self.quantize(sorted(excluded)))


def float_operators(content: bytes) -> list[str]:
    """Return the operators of a .tflite file that compute in float32, by name of their output."""
    model = litert_file.read(content)
    float32, found = litert_file.schema.TensorType.FLOAT32, []
    for graph in model.subgraphs:
        for operator in graph.operators:
            tensors = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            computes = litert_file.operator_name(model, operator) not in litert_file.CASTS
            if computes and any(tensor.type == float32 for tensor in tensors):
                found.append(output_name(graph, operator))
    return found


def output_name(graph: Any, operator: Any) -> str:
    """Return the name of an operator's output."""
    return litert_file.name_of(graph.tensors[operator.outputs[0]])
