"""The operators of a layer in files of every runtime, by their names.

An operator has the name of its output, MODEL/LAYER/operation;MODEL/OTHER/operation if several were fused. Keras may
number the scopes, of all layers or of none: "conv_1" is the layer of this name in one file, and "conv" in another.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

NUMBER = re.compile(r"_\d+$")


def layer_patterns(operators: Iterable[str], layers: Iterable[str], others: Iterable[str] = ()) -> dict[str, str]:
    """Return the regular expressions that match the operators of layers in a file, by layer.

    Args:
        operators: the names of all operators of the file.
        layers: names of layers.
        others: the other layers of the model, which show whether the scopes are numbered.
    """
    layers = list(layers)
    known = {*layers, *others}
    # The scope of another layer is not one of these with a number after it.
    certain = {name for name in known if NUMBER.sub("", name) == name or NUMBER.sub("", name) not in known}
    # The first part is the model, or the name of an input or output, which is that of its layer in any case.
    parts = {part for operator in operators for one in operator.split(";") for part in one.split("/")[1:]}
    numbered = len(certain & {NUMBER.sub("", part) for part in parts if NUMBER.search(part)}) > len(certain & parts)
    suffixes = {name: ("(_[0-9]+)?" if name in certain else "_[0-9]+") if numbered else "" for name in layers}
    return {name: rf"(^|.*[/;]){re.escape(name)}{suffix}([/;].*|$)" for name, suffix in suffixes.items()}


def matching(operators: Collection[str], layers: Collection[str], others: Collection[str] = ()) -> list[str]:
    """Return the operators of a file that belong to layers; for the arguments see `layer_patterns`."""
    patterns = list(map(re.compile, layer_patterns(operators, layers, others).values()))
    return [name for name in operators if any(pattern.match(name) for pattern in patterns)]
