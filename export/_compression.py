"""What a compression is: a step that makes a trained network smaller, its options, and what it claims."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo._errors import BadOption, did_you_mean
from zoo._registry import Registry
from zoo._types import fit_type

if TYPE_CHECKING:
    import keras

    from export._bench import Bench
    from export._source import Source

# Stages of a chain: another network, fewer channels, zeros, few values, int8.
OTHER, FEWER, SPARSE, SHARED, INTEGER, CLOSED = range(6)
ANYWHERE = CLOSED


@dataclasses.dataclass(frozen=True)
class Compression:
    """One way to make a network smaller.

    Args:
        name: what users write in a chain.
        options: a frozen dataclass, whose fields are the options.
        first: options that a value without a name may stand for; the first whose type fits takes it.
        plan: `plan(network, options, bench)` returns what later steps will be given, untrained; raises BadOption or
            UnsupportedExport for what cannot be had. It leaves the network as it is.
        apply: `apply(network, options, bench)` returns the smaller network, trained; it may change the one given.
        claims: `claims(network, options)` says what holds of a network that was made so; see `export._claims`.
        stage: where it may stand in a chain: not after a step whose `then` is higher.
        then: the least stage that may follow; what a lower one does would undo it.
        summary: one line for people.
        writers: `writers(options, bench)` returns the formats that it writes itself, each as `write(source, path)`.
        only: the formats that it has a meaning for; none for all.
        inspect: `inspect(fmt, path, facts)` looks for what it claims in a format that it writes itself, and returns
            what was found; raises ParityError.
    """

    name: str
    options: type
    first: tuple[str, ...]
    plan: Callable[[keras.Model, Any, Bench], keras.Model]
    apply: Callable[[keras.Model, Any, Bench], keras.Model]
    claims: Callable[[keras.Model, Any], dict[str, Any]]
    stage: int
    then: int
    summary: str
    writers: Callable[[Any, Bench], Mapping[str, Callable[[Source, Path], None]]] = lambda _options, _bench: {}
    only: tuple[str, ...] = ()
    inspect: Callable[[str, Path, dict[str, Any]], dict[str, Any]] = lambda _fmt, _path, _facts: {}


compressions: Registry[Compression] = Registry("compression", "export", "zoo.compressions")


def register(compression: Compression) -> None:
    """Register a compression; raises DuplicateName if the name is taken."""
    compressions.add(compression.name, compression, compression.apply.__module__)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a chain.

    Args:
        compression: which.
        options: an instance of its dataclass.
        text: how it was written, without white space.
    """

    compression: Compression
    options: Any
    text: str


def parse_step(text: str) -> Step:
    """Return what `name:value,option=value` asks for.

    Values are numbers, texts, true, false; 2:4 or 1x4 for a pair and a+b for a list of texts.

    Raises:
        UnknownName: no such compression.
        BadOption: an option that it does not have, or a value that cannot be.
    """
    name, _, rest = "".join(text.split()).partition(":")
    compression = compressions[name]
    types = typing.get_type_hints(compression.options)
    given: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = _meant(compression, part, types, given), part
        elif key not in types:
            raise BadOption(f"{name} has no option of this name. Received: {key}={value}. {did_you_mean(key, types)}")
        if key in given:
            raise BadOption(f"An option of {name} is given once. Received: {key}={value}, {key}={given[key]}")
        given[key] = _fit(value, types[key], f"{name}:{key}")
    written = "".join(text.split()).rstrip(":")
    return Step(compression, compression.options(**given), written)


def _meant(compression: Compression, value: str, types: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the option that a value without a name is for."""
    free = [key for key in compression.first if key not in given]
    for key in free:
        try:
            _fit(value, types[key], key)
        except BadOption:
            continue
        return key
    hint = f"Give it as {free[0]}=VALUE" if free else f"Options: {', '.join(types)}"
    raise BadOption(f"{compression.name} does not take this value. Received: {value!r}. {hint}.")


def _fit(text: str, wanted: Any, name: str) -> Any:
    """Return a value as the type that an option has."""
    value = _read(text)
    if typing.get_origin(wanted) is tuple and not isinstance(value, tuple):
        value = (value,)
    if wanted is str:
        value = text
    return fit_type(value, wanted, name)


def _read(text: str) -> Any:
    """Return the value that a text stands for."""
    if re.fullmatch(r"\d+([:x]\d+)+", text):
        return tuple(map(int, re.split("[:x]", text)))
    if "+" in text:
        return tuple(text.split("+"))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)
