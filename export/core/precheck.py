"""What is known to fail in converters, looked for in the network before anything is converted, with what mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from export.core.format import FormatRequest
from zoo.common.errors import UnsupportedExport

# Operators of TensorFlow that draw random numbers.
RANDOM = re.compile(r"Random|Multinomial|TruncatedNormal")
LISTS = "TensorListReserve"  # what recurrent layers keep their steps in


class Checked(Protocol):
    """What rules look at: a source model."""

    @property
    def model(self) -> Any:
        """keras.Model in float32."""

    @property
    def metadata(self) -> dict[str, Any]:
        """Facts that go into the artifact, "model" among them."""

    @property
    def operators(self) -> list[tuple[str, str]]:
        """TensorFlow's operators that the model runs, each with the name of its layer."""


Rule = Callable[[Checked, FormatRequest], Iterator[str]]


def check(source: Checked, wanted: FormatRequest) -> None:
    """Raise UnsupportedExport for a network that a format cannot have, with the reason and what mends it.

    Args:
        source: the network.
        wanted: the format with its options.
    """
    for rule in (_free_sizes, _random, *wanted.format.rules):
        for reason in rule(source, wanted):
            raise UnsupportedExport(f"{source.metadata['model']} does not export to {wanted.format.name}: {reason}")


def _free_sizes(source: Checked, _: FormatRequest) -> Iterator[str]:
    """Sizes beside the batch that are free: phones and calibration want fixed ones."""
    for tensor in source.model.inputs:
        if None in tensor.shape[1:]:
            yield (
                f"every size but the batch must be fixed. Received: {tensor.name} of shape {tuple(tensor.shape)}. "
                "Build it with input_shape="
            )


def _random(source: Checked, _: FormatRequest) -> Iterator[str]:
    """Layers that draw random numbers when asked for an answer."""
    for kind, layer in source.operators:
        if RANDOM.search(kind):
            yield (
                f"it must give one answer to one input. Received: layer {layer!r}, which draws random numbers "
                f"({kind}). Let the layer do so only when called with training=True"
            )


def lacking(table: Mapping[str, str], unless: str = "") -> Rule:
    """Return a rule for operators of TensorFlow that a converter, or its runtime, has nothing for.

    Args:
        table: what mends it, by operator.
        unless: the option of the format that lets them in; "" for none.
    """

    def rule(source: Checked, wanted: FormatRequest) -> Iterator[str]:
        for kind, layer in source.operators:
            if kind in table and not getattr(wanted.options, unless or "none", False):
                yield f"it has no such operator. Received: layer {layer!r} with {kind}. {table[kind]}"

    return rule
