"""Checks of a model before conversion: known failures of converters, found in seconds, with what to do about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from export.core.format import FormatRequest
from zoo.common.errors import UnsupportedExport

# TensorFlow operators that draw random numbers.
RANDOM = re.compile(r"Random|Multinomial|TruncatedNormal")
# The operator in which recurrent layers collect their steps.
TENSOR_LIST = "TensorListReserve"
# What lets the steps of such a layer be unrolled.
UNROLLED = "Use a fixed number of steps, at most 512, without a mask into a Bidirectional layer that returns sequences"


class CheckedModel(Protocol):
    """What rules read of an `export.source.source.SourceModel`."""

    @property
    def model(self) -> Any:
        """keras.Model in float32."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The artifact's metadata, "model" among it."""

    @property
    def operators(self) -> list[tuple[str, str]]:
        """The TensorFlow operators that the model runs, each with the name of its layer."""


Rule = Callable[[CheckedModel, FormatRequest], Iterator[str]]


def precheck(source: CheckedModel, request: FormatRequest) -> None:
    """Raise UnsupportedExport if a format cannot represent a model; the message has the reason and a fix.

    Args:
        source: the model.
        request: the format with its options.
    """
    for rule in (_strings, _dynamic_sizes, _random_operators, *request.format.rules):
        for reason in rule(source, request):
            raise UnsupportedExport(f"{source.metadata['model']} does not export to {request.format.name}: {reason}")


def _strings(source: CheckedModel, request: FormatRequest) -> Iterator[str]:
    """Yield inputs of strings, which TensorFlow alone has."""
    for tensor in () if request.format.any_input else source.model.inputs:
        if tensor.dtype == "string":
            yield f"inputs must be numbers. Received: {tensor.name} of strings. Use saved_model, or let it take ids"


def _dynamic_sizes(source: CheckedModel, request: FormatRequest) -> Iterator[str]:
    """Yield inputs with dynamic sizes next to the batch; phones and calibration need static ones."""
    for tensor in () if request.format.any_input else source.model.inputs:
        if None in tensor.shape[1:]:
            yield (
                f"every size but the batch must be fixed. Received: {tensor.name} of shape {tuple(tensor.shape)}. "
                "Pass input_shape (--set input_shape=[…]), or use saved_model"
            )


def _random_operators(source: CheckedModel, _: FormatRequest) -> Iterator[str]:
    """Yield layers that draw random numbers at inference."""
    for kind, layer in source.operators:
        if RANDOM.search(kind):
            yield (
                f"the same input must give the same output. Received: layer {layer!r}, which draws random numbers "
                f"({kind}). Let the layer do so only when called with training=True"
            )


def without_operators(unsupported: Mapping[str, str], unless: str = "") -> Rule:
    """Return a rule for TensorFlow operators that a converter or its runtime does not support.

    Args:
        unsupported: what to do instead, by operator.
        unless: the format's option that allows them; "" for none.
    """

    def rule(source: CheckedModel, request: FormatRequest) -> Iterator[str]:
        for kind, layer in source.operators:
            if kind in unsupported and not getattr(request.options, unless or "none", False):
                yield f"it has no such operator. Received: layer {layer!r} with {kind}. {unsupported[kind]}"

    return rule
