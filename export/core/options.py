"""Options as users write them, `name:value,option=value`: those of formats and those of a chain's steps."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from zoo.common.errors import BadOption, did_you_mean
from zoo.common.types import fit_type

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a format can be asked for; a format without options has these, which are none."""

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise BadOption if a network cannot have them.

        Args:
            facts: those of the network, see `export.core.format.describe`.
        """


def split_name(text: str) -> tuple[str, str]:
    """Return the name and what follows it, without white space."""
    name, _, rest = "".join(text.split()).partition(":")
    return name, rest


def read_options(name: str, text: str, kind: type[T], first: Sequence[str] = ()) -> T:
    """Return the options that a text like `value,option=value` asks for.

    Values are numbers, texts, true, false; 2:4 or 1x4 for a pair and a+b for a list of texts.

    Args:
        name: what has them, for messages.
        text: the options, separated by commas; "" for the defaults.
        kind: the dataclass that they are fields of.
        first: options that a value without a name may stand for; the first whose type fits takes it.

    Raises:
        BadOption: an option that it does not have, or a value that cannot be.
    """
    types = {key: typing.get_type_hints(kind)[key] for key in _names(kind)}
    given: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = _meant(name, part, first, types, given), part
        elif key not in types:
            hint = did_you_mean(key, types) if types else f"{name} has none."
            raise BadOption(f"{name} has no option of this name. Received: {key}={value}. {hint}")
        if key in given:
            raise BadOption(f"An option of {name} is given once. Received: {key}={value}, {key}={given[key]}")
        given[key] = _fit(value, types[key], f"{name}:{key}")
    return kind(**given)


def _meant(name: str, value: str, first: Sequence[str], types: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the option that a value without a name is for."""
    free = [key for key in first if key not in given]
    for key in free:
        try:
            _fit(value, types[key], key)
        except BadOption:
            continue
        return key
    hint = f"Give it as {free[0]}=VALUE" if free else f"Options: {', '.join(types) or 'none'}"
    raise BadOption(f"{name} does not take this value. Received: {value!r}. {hint}.")


def _fit(text: str, wanted: Any, name: str) -> Any:
    """Return a value as the type that an option has."""
    value = _read(text)
    if typing.get_origin(wanted) is tuple and not isinstance(value, tuple):
        value = (value,)
    if wanted is str or text in typing.get_args(wanted):
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


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def changed(options: Any) -> dict[str, Any]:
    """Return the options that are not the defaults, by name."""
    plain = type(options)()
    values = {name: getattr(options, name) for name in _names(type(options))}
    return {name: value for name, value in values.items() if value != getattr(plain, name)}


def described(facts: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Return the facts that an artifact carries: its network's, and those options that are not the defaults."""
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in changed(options).items()}
    return {**facts, "options": told} if told else dict(facts)


def written(value: Any) -> str:
    """Return a value as users write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(map(written, value)) if isinstance(value, tuple) else str(value)


def slug_of(options: Any) -> str:
    """Return what goes into the name of a folder: "" for the defaults, else "+batch=4+input=uint8".

    Where characters are lost, a few digits of a digest stand for them.
    """
    text = "".join(f"+{key}={written(value)}" for key, value in changed(options).items())
    plain = re.sub(r"[^A-Za-z0-9.=+_-]+", "-", text)[:80]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:4]}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """An option as it is listed.

    Args:
        name: its name.
        default: its value if nothing is said.
        values: the values it can have, the default first; empty where those are more than can be listed.
    """

    name: str
    default: Any
    values: tuple[Any, ...]

    @property
    def text(self) -> str:
        """How it reads: "input=float32|uint8"."""
        return f"{self.name}={'|'.join(map(written, self.values or (self.default,)))}"


def choices(kind: type) -> list[Choice]:
    """Return the options of a dataclass."""
    plain, types = kind(), typing.get_type_hints(kind)
    found = []
    for name in _names(kind):
        default, values = getattr(plain, name), typing.get_args(types[name])
        values = (True, False) if types[name] is bool else values
        listed = types[name] is bool or typing.get_origin(types[name]) is typing.Literal
        others = tuple(value for value in values if value != default)
        found.append(Choice(name, default, (default, *others) if listed else ()))
    return found
