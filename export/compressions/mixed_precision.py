"""mixed_precision: if int8 loses too much accuracy, equalize channels, then exclude the fewest layers from int8.

An activation has one scale. If its channels differ much in size, excluding its layer is not enough: the next layer
reads the same activation in int8. Equalizing the two layers avoids a float fallback.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.options import IntegerOptions
from export.backends.litert.quantize import write_integer
from export.compression.guarantees import FACTS
from export.compression.quantization.selective_quantization import SelectiveQuantization, select_layers
from export.compression.quantization.trials import FALLBACKS, TIE_BREAK, Evaluator, Trial, float_operators
from export.compression.workbench import check_classifier, check_float_input
from export.core.compression import FINAL, QUANTIZED, Compression, Workbench, register
from zoo.common.errors import BadOption, ExportError, ParityError
from zoo.common.files import write_json

if TYPE_CHECKING:
    import keras as _keras

    from export.source.source import SourceModel

FORMAT, DEFAULT_OPTIONS = "tflite_int8", IntegerOptions()


@dataclasses.dataclass(frozen=True)
class Options:
    """The budget, and the precision of the excluded layers.

    Args:
        budget: maximum loss of validation accuracy, as a fraction.
        error: maximum error of a logit on the validation split, relative to the largest; an excess counts as a loss of
            accuracy.
        fallback: "float", or "16x8" for int8 weights with int16 activations.
        equalize: equalize channels first; see `export.compression.quantization.equalization`.
    """

    budget: float = 0.005
    error: float = 0.1
    fallback: str = "float"
    equalize: bool = True

    def __post_init__(self) -> None:
        if not (0 <= self.budget < 1 and self.error > 0) or self.fallback not in FALLBACKS:
            raise BadOption(
                f"budget must be at least 0 and below 1, error above 0, fallback one of {', '.join(FALLBACKS)}. "
                f"Received: budget={self.budget}, error={self.error}, fallback={self.fallback!r}"
            )


def plan(model: _keras.Model, _options: Options, workbench: Workbench) -> _keras.Model:
    """Return the model unchanged; raises UnsupportedExport for a model of texts, or without classes."""
    check_float_input(model, "Mixed precision")
    check_classifier(model, workbench, "Mixed precision")
    return model


def guarantees(_model: _keras.Model, _options: Options) -> dict[str, Any]:
    """Return no guarantees; `inspect` checks the float operators."""
    return {}


def writers(options: Options, workbench: Workbench) -> Mapping[str, Callable[..., None]]:
    """Return the writer of the int8 format with the fewest layers excluded."""

    def write(source: SourceModel, path: Path, format_options: IntegerOptions = DEFAULT_OPTIONS) -> None:
        evaluator = Evaluator(source, workbench, options.error, format_options)
        budget = options.budget + TIE_BREAK
        plain = Trial(evaluator, fallback=options.fallback)
        equalized = _layers_to_equalize(evaluator, plain, budget) if options.equalize else ()
        trial = Trial(evaluator, equalized, options.fallback) if equalized else plain
        selected = select_layers(trial.layers(), trial.cost, budget)
        content = trial.quantize(selected.excluded)
        write_integer(content, source, path, format_options)
        facts = _facts(selected, trial, content, options.fallback)
        write_json(path.parent / FACTS, facts | {"trials": evaluator.trials, "int8_validation_cost": plain.cost()})

    return {FORMAT: write}


def _layers_to_equalize(evaluator: Evaluator, plain: Trial, budget: float) -> tuple[str, ...]:
    """Return the fewest layers to equalize within the budget; else all layers, if that reduces the cost."""
    names = plain.equalizable()
    try:
        return select_layers(list(names), lambda chosen: Trial(evaluator, chosen).cost(), budget).excluded
    except ExportError:
        return tuple(names) if Trial(evaluator, names).cost() < plain.cost() else ()


def _facts(selected: SelectiveQuantization, trial: Trial, content: bytes, fallback: str) -> dict[str, Any]:
    return {
        "equalized": trial.channel_spread,
        "excluded": list(selected.excluded),
        "fallback": fallback,
        "float_operators": float_operators(content),
        "validation_cost": selected.cost,
    }


def inspect(fmt: str, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Compare the float32 operators of the artifact with the recorded ones; raises ParityError."""
    if fmt != FORMAT:
        return {}
    found = float_operators(path.read_bytes())
    if found != facts.get("float_operators"):
        raise ParityError(
            f"{path.name} must compute in float32 only in: {json.dumps(facts.get('float_operators'))}. "
            f"Received: {json.dumps(found)}"
        )
    return {"float_operators": found}


register(
    Compression(
        name="mixed_precision",
        options=Options,
        positional=("budget",),
        plan=plan,
        apply=plan,
        guarantees=guarantees,
        stage=QUANTIZED,
        next_stage=FINAL,
        summary="mixed_precision:0.005[,fallback=16x8]: int8 with the fewest layers excluded for a budget of accuracy",
        writers=writers,
        formats=(FORMAT,),
        inspect=inspect,
        packages=("ai_edge_litert", "litert_quantizer"),
    )
)
