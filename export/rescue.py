"""rescue: where int8 loses too much, the fewest layers stay in floating point, or get 16-bit activations."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export import _litert_file
from export._bench import Bench, check_values
from export._compression import CLOSED, INTEGER, Compression, register
from export._graph import layers_under
from export._litert import LiteRuntime
from export._litert_ranges import calibrate, limit_masks
from export._quiet import quiet
from export._rescue import Rescue, rescue, scope
from training._files import write_json
from zoo._errors import BadOption, ParityError
from zoo._lazy import LazyModule, np

if TYPE_CHECKING:
    import keras as _keras

    from export._source import Source

qtyping = LazyModule("litert_quantizer.qtyping", "litert-quantizer")
quantizer = LazyModule("litert_quantizer.quantizer", "litert-quantizer")
recipe = LazyModule("litert_quantizer.recipe", "litert-quantizer")

FORMAT, FACTS = "tflite_int8", "facts.json"
EXAMPLES = 400
# Between choices of the same accuracy the one with the smaller error is better, by at most so much.
TIE = 1e-3
WAYS = ("float", "16x8")


@dataclasses.dataclass(frozen=True)
class Options:
    """When int8 is good enough, and what stands in for it.

    Args:
        budget: most accuracy on the validation split that int8 may lose, as a fraction.
        error: largest difference of a logit there, as a share of the largest; what is beyond costs as accuracy does.
        keep: "float", or "16x8" for int8 weights with int16 activations.
    """

    budget: float = 0.005
    error: float = 0.1
    keep: str = "float"

    def __post_init__(self) -> None:
        if not (0 <= self.budget < 1 and self.error > 0) or self.keep not in WAYS:
            raise BadOption(
                f"budget must be at least 0 and below 1, error above 0, keep one of {', '.join(WAYS)}. "
                f"Received: budget={self.budget}, error={self.error}, keep={self.keep!r}"
            )


def plan(network: _keras.Model, _options: Options, _bench: Bench) -> _keras.Model:
    """Return the network as it is; raises UnsupportedExport for one of texts."""
    check_values(network, "Rescue")
    return network


def claims(_network: _keras.Model, _options: Options) -> dict[str, Any]:
    """Claim nothing of the weights; `inspect` looks for what is not int8."""
    return {}


def writers(options: Options, bench: Bench) -> Mapping[str, Callable[[Source, Path], None]]:
    """Return the int8 format with as few layers as possible left out."""

    def write(source: Source, path: Path) -> None:
        trial = Trial(source, bench, options)
        found = rescue(trial.names(source.model), trial.cost, options.budget + TIE)
        content = trial.quantize(found.floating)
        _litert_file.finish(content, source.metadata, path)
        write_json(path.parent / FACTS, _facts(found, options, content))

    return {FORMAT: write}


def _facts(found: Rescue, options: Options, content: bytes) -> dict[str, Any]:
    return {
        "rescued": list(found.floating),
        "kept_as": options.keep,
        "float_operators": _floats(content),
        "validation_cost": found.cost,
        "validation_cost_unaided": found.unaided,
        "trials": found.trials,
    }


class Trial:
    """Quantizes a network with some layers left out and judges it on validation examples.

    Args:
        source: the network.
        bench: where its data is.
        options: what costs, and how layers are left out.
    """

    def __init__(self, source: Source, bench: Bench, options: Options) -> None:
        floating = source.shared("tflite")
        self._rules, self._options, self._metadata = recipe.static_wi8_ai8(), options, source.metadata
        self._ranges = calibrate(floating, source, self._rules)
        self._content = limit_masks(floating.read_bytes(), self._ranges)
        self._inputs, self._labels = bench.pipeline.raw("validation", EXAMPLES)
        self._logits = source.model.predict(self._inputs, verbose=0)

    def names(self, network: _keras.Model) -> list[str]:
        """Return the layers that operators of the file come from; of several that became the same, the first."""
        operators = [
            _output(graph, operator)
            for graph in _litert_file.read(self._content).subgraphs
            for operator in graph.operators
        ]
        layers = [layer for layer in layers_under(network) if layer.weights]
        found: dict[tuple[str, ...], str] = {}
        # A normalization that was folded is part of the layer before it, and goes by that one's name.
        for layer in sorted(layers, key=lambda layer: not hasattr(layer, "kernel")):
            matched = tuple(name for name in operators if re.search(scope(layer.name), name))
            if matched:
                found.setdefault(matched, layer.name)
        return list(found.values())

    def quantize(self, left: Iterable[str]) -> bytes:
        """Return the .tflite in which these layers are left out of int8."""
        tool = quantizer.Quantizer(bytearray(self._content), self._rules)
        for name in left:
            tool.update_quantization_recipe(scope(name), qtyping.TFLOperationName.ALL_SUPPORTED, *self._way())
        with quiet():
            # The quantizer changes what it is given.
            ranges = {name: dict(values) for name, values in self._ranges.items()}
            result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        return bytes(result.quantized_model)

    def _way(self) -> tuple[Any, Any]:
        """Return configuration and algorithm of what is left out."""
        if self._options.keep == WAYS[0]:
            return None, quantizer.AlgorithmName.NO_QUANTIZE
        (rule,) = recipe.static_wi8_ai16()
        return qtyping.OpQuantizationConfig.from_dict(rule["op_config"]), rule["algorithm_key"]

    def cost(self, left: frozenset[str]) -> float:
        """Return the accuracy that is lost, plus the error that is too large, plus at most `TIE` for all of it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            _litert_file.finish(self.quantize(sorted(left)), self._metadata, path)
            logits = LiteRuntime(path)(self._inputs)
        right, was = ((x.argmax(-1) == self._labels).mean() for x in (logits, self._logits))
        size = np.abs(logits - self._logits) / (np.abs(self._logits).max() + 1e-12)
        return float(was - right + max(0.0, size.max() - self._options.error) + TIE * min(1.0, size.mean()))


def _floats(content: bytes) -> list[str]:
    """Return the operators of a .tflite that compute in float32, each by the name of its output."""
    model = _litert_file.read(content)
    kind, found = _litert_file.schema.TensorType.FLOAT32, []
    for graph in model.subgraphs:
        for operator in graph.operators:
            tensors = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            computes = _litert_file.operator_name(model, operator) not in _litert_file.CASTS
            if computes and any(tensor.type == kind for tensor in tensors):
                found.append(_output(graph, operator))
    return found


def _output(graph: Any, operator: Any) -> str:
    return _litert_file.name_of(graph.tensors[operator.outputs[0]])


def inspect(fmt: str, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Compare the operators that compute in float32 with those that are claimed; raises ParityError."""
    if fmt != FORMAT:
        return {}
    found = _floats(path.read_bytes())
    if found != facts.get("float_operators"):
        raise ParityError(
            f"{path.name} is claimed to compute in float32: {json.dumps(facts.get('float_operators'))}. "
            f"Received: {json.dumps(found)}"
        )
    return {"float_operators": found}


register(
    Compression(
        name="rescue",
        options=Options,
        first=("budget",),
        plan=plan,
        apply=plan,
        claims=claims,
        stage=INTEGER,
        then=CLOSED,
        summary="rescue:0.005[,keep=16x8]: the layers that cost int8 most stay in float, as few as hold the budget",
        writers=writers,
        only=(FORMAT,),
        inspect=inspect,
    )
)
