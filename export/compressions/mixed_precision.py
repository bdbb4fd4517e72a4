"""rescue: where int8 loses too much, channels are equalized; then the fewest layers stay in floating point.

An activation has one scale, so that a layer whose channels differ much in size cannot stay in floating point by
itself: what reads it would take them in int8. Equalizing the two layers leaves neither in floating point.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert import file as litert_file
from export.backends.litert.calibration import calibrate, limit_masks
from export.backends.litert.options import FloatOptions, IntegerOptions
from export.backends.litert.quantize import ship
from export.backends.litert.runtime import LiteRuntime
from export.compression.equalization import Links
from export.compression.pipeline import FACTS
from export.compression.selective_quantization import Rescue, rescue, scope
from export.compression.workbench import Workbench, check_classes, check_values
from export.core.compression import CLOSED, INTEGER, Compression, register
from export.core.keras_graph import layers_under
from export.core.quiet import quiet
from zoo.common.errors import BadOption, ExportError, ParityError
from zoo.common.files import write_json
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    import keras as _keras

    from export.source.source import Source

qtyping = LazyModule("litert_quantizer.qtyping", "litert-quantizer")
quantizer = LazyModule("litert_quantizer.quantizer", "litert-quantizer")
recipe = LazyModule("litert_quantizer.recipe", "litert-quantizer")

FORMAT, PLAIN = "tflite_int8", IntegerOptions()
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
        equalize: whether channels are equalized first, see `export.compression.equalization`.
    """

    budget: float = 0.005
    error: float = 0.1
    keep: str = "float"
    equalize: bool = True

    def __post_init__(self) -> None:
        if not (0 <= self.budget < 1 and self.error > 0) or self.keep not in WAYS:
            raise BadOption(
                f"budget must be at least 0 and below 1, error above 0, keep one of {', '.join(WAYS)}. "
                f"Received: budget={self.budget}, error={self.error}, keep={self.keep!r}"
            )


def plan(network: _keras.Model, _options: Options, workbench: Workbench) -> _keras.Model:
    """Return the network as it is; raises UnsupportedExport for one of texts, or without classes."""
    check_values(network, "Rescue")
    check_classes(network, workbench, "Rescue")
    return network


def guarantees(_network: _keras.Model, _options: Options) -> dict[str, Any]:
    """Claim nothing of the weights; `inspect` looks for what is not int8."""
    return {}


def writers(options: Options, workbench: Workbench) -> Mapping[str, Callable[..., None]]:
    """Return the int8 format with as few layers as possible left out."""

    def write(source: Source, path: Path, asked: IntegerOptions = PLAIN) -> None:
        judge, budget = Judge(source, workbench, options, asked), options.budget + TIE
        plain = Trial(judge)
        equalized = _equalized(judge, plain, budget) if options.equalize else ()
        trial = Trial(judge, equalized) if equalized else plain
        found = rescue(trial.names(), trial.cost, budget)
        content = trial.quantize(found.floating)
        ship(content, source, path, asked)
        facts = _facts(found, judge, trial, content)
        write_json(path.parent / FACTS, facts | {"validation_cost_unaided": plain.cost()})

    return {FORMAT: write}


def _equalized(judge: Judge, plain: Trial, budget: float) -> tuple[str, ...]:
    """Return the fewest layers whose channels, equalized, hold the budget; all if that helps at least."""
    names = plain.links()
    try:
        return rescue(list(names), lambda chosen: Trial(judge, chosen).cost(), budget).floating
    except ExportError:
        return tuple(names) if Trial(judge, names).cost() < plain.cost() else ()


def _facts(found: Rescue, judge: Judge, trial: Trial, content: bytes) -> dict[str, Any]:
    return {
        "equalized": trial.spread,
        "rescued": list(found.floating),
        "kept_as": judge.options.keep,
        "float_operators": _floats(content),
        "validation_cost": found.cost,
        "trials": judge.trials,
    }


class Judge:
    """What networks are judged on: validation examples, and what the source makes of them.

    Args:
        source: the network.
        bench: where its data is.
        options: what costs, and how layers are left out.
        asked: the options of the format.

    Attributes:
        trials: how many networks were judged.
    """

    def __init__(self, source: Source, workbench: Workbench, options: Options, asked: IntegerOptions = PLAIN) -> None:
        self.source, self.options, self.asked, self.trials = source, options, asked, 0
        self._inputs, self._labels = workbench.pipeline.raw("validation", EXAMPLES)
        self._logits = source.model.predict(self._inputs, verbose=0)

    def cost(self, content: bytes) -> float:
        """Return the accuracy that a file loses, plus the error that is too large, plus at most `TIE` for all of it."""
        self.trials += 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            litert_file.finish(content, self.source.metadata, path)
            logits = LiteRuntime(path)(self._inputs)
        right, was = ((x.argmax(-1) == self._labels).mean() for x in (logits, self._logits))
        size = np.abs(logits - self._logits) / (np.abs(self._logits).max() + 1e-12)
        return float(was - right + max(0.0, size.max() - self.options.error) + TIE * min(1.0, size.mean()))


class Trial:
    """Quantizes a network with some layers equalized and some left out.

    Args:
        judge: says what comes of it.
        equalized: layers whose channels are equalized.

    Attributes:
        spread: how far apart the channels of those were, by layer.
    """

    def __init__(self, judge: Judge, equalized: Collection[str] = ()) -> None:
        source = judge.source
        self._judge, self._rules = judge, recipe.static_wi8_ai8()
        self._content = source.shared("tflite", FloatOptions(batch=judge.asked.batch)).read_bytes()
        self.spread: dict[str, float] = {}
        if equalized:
            known, links = self.links(), Links(self._content)
            found = links.equalize(known[name] for name in equalized)
            self.spread = {name: found[known[name]] for name in equalized}
            self._content = links.content()
        with tempfile.TemporaryDirectory() as folder:
            floating = Path(folder) / "model.tflite"
            floating.write_bytes(self._content)
            self._ranges = calibrate(floating, source, self._rules, judge.asked.batch)
        self._content = limit_masks(self._content, self._ranges)

    def links(self) -> dict[str, str]:
        """Return the layers whose channels can be equalized, each with the name of its operator."""
        operators = Links(self._content).found
        return {layer: name for layer, matched in self._operators().items() for name in matched if name in operators}

    def names(self) -> list[str]:
        """Return the layers that operators of the file come from."""
        return list(self._operators())

    def _operators(self) -> dict[str, tuple[str, ...]]:
        """Return the operators of each layer by the names of their outputs; of layers that became one, the first's."""
        operators = [
            _output(graph, operator)
            for graph in litert_file.read(self._content).subgraphs
            for operator in graph.operators
        ]
        layers = [layer for layer in layers_under(self._judge.source.model) if layer.weights]
        found: dict[tuple[str, ...], str] = {}
        # A normalization that was folded is part of the layer before it, and goes by that one's name.
        for layer in sorted(layers, key=lambda layer: not hasattr(layer, "kernel")):
            matched = tuple(name for name in operators if re.search(scope(layer.name), name))
            if matched:
                found.setdefault(matched, layer.name)
        return {name: matched for matched, name in found.items()}

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
        if self._judge.options.keep == WAYS[0]:
            return None, quantizer.AlgorithmName.NO_QUANTIZE
        (rule,) = recipe.static_wi8_ai16()
        return qtyping.OpQuantizationConfig.from_dict(rule["op_config"]), rule["algorithm_key"]

    def cost(self, left: Collection[str] = ()) -> float:
        """Return what is lost with some layers left out."""
        return self._judge.cost(self.quantize(sorted(left)))


def _floats(content: bytes) -> list[str]:
    """Return the operators of a .tflite that compute in float32, each by the name of its output."""
    model = litert_file.read(content)
    kind, found = litert_file.schema.TensorType.FLOAT32, []
    for graph in model.subgraphs:
        for operator in graph.operators:
            tensors = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            computes = litert_file.operator_name(model, operator) not in litert_file.CASTS
            if computes and any(tensor.type == kind for tensor in tensors):
                found.append(_output(graph, operator))
    return found


def _output(graph: Any, operator: Any) -> str:
    return litert_file.name_of(graph.tensors[operator.outputs[0]])


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
        guarantees=guarantees,
        stage=INTEGER,
        then=CLOSED,
        summary="rescue:0.005[,keep=16x8]: where int8 loses more, the layers that cost it are mended, or stay float",
        writers=writers,
        only=(FORMAT,),
        inspect=inspect,
        packages=("ai_edge_litert", "litert_quantizer"),
    )
)
