"""Options as users write them, `name:value,option=value`: of formats and of the steps of a compression pipeline."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from zoo.common.budgets import check_option
from zoo.common.errors import BadOption, did_you_mean
from zoo.common.types import fit_type

T = TypeVar("T")
# Key in the metadata of a format's option, `dataclasses.field(default=..., metadata={REMEDY: value})`: the value to try
# if the format loses too much accuracy with the default.
REMEDY = "remedy"


@dataclasses.dataclass(frozen=True)
class Options:
    """Base class of a format's options; has none itself."""

    def __post_init__(self) -> None:
        """Raise BadOption for an invalid value."""

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise BadOption if a model does not support these options.

        Args:
            metadata: the model's, see `export.core.metadata.model_metadata`.
        """


def split_name(text: str) -> tuple[str, str]:
    """Return the name and the text after it, without white space."""
    name, _, rest = "".join(text.split()).partition(":")
    return name, rest


def parse_options(name: str, text: str, kind: type[T], positional: Sequence[str] = ()) -> T:
    """Return the options in a text such as `value,option=value`.

    Values are numbers, texts, true or false; 2:4 or 1x4 for a pair; a+b for a list of texts.

    Args:
        name: the owner of the options, for messages.
        text: the options, separated by commas; "" for the defaults.
        kind: the dataclass of the options.
        positional: options for values without a name; a value goes to the first one of a fitting type.

    Raises:
        BadOption: an unknown option, or an invalid value.
    """
    types = {key: typing.get_type_hints(kind)[key] for key in _names(kind)}
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = _positional_option(name, part, positional, types, values), part
        elif key not in types:
            hint = did_you_mean(key, types) if types else f"{name} has none."
            raise BadOption(f"{name} has no option of this name. Received: {key}={value}. {hint}")
        if key in values:
            raise BadOption(f"An option of {name} is given once. Received: {key}={value}, {key}={values[key]}")
        values[key] = _parse(value, types[key], f"{name}:{key}")
    return kind(**values)


def _positional_option(
    name: str, value: str, positional: Sequence[str], types: Mapping[str, Any], used: Mapping[str, Any]
) -> str:
    """Return the option for a value without a name."""
    free = [key for key in positional if key not in used]
    for key in free:
        try:
            _parse(value, types[key], key)
        except BadOption:
            continue
        return key
    hint = f"Give it as {free[0]}=VALUE" if free else f"Options: {', '.join(types) or 'none'}"
    raise BadOption(f"{name} does not take this value. Received: {value!r}. {hint}.")


def _parse(text: str, expected: Any, name: str) -> Any:
    """Return a value as the type of its option."""
    value = _literal(text)
    listed = any(typing.get_origin(kind) is tuple for kind in (expected, *typing.get_args(expected)))
    # A text among numbers and lists of texts is such a list.
    if listed and not isinstance(value, tuple) and (typing.get_origin(expected) is tuple or isinstance(value, str)):
        value = (value,)
    if expected is str or text in typing.get_args(expected):
        value = text
    fitting = fit_type(value, expected, name)
    check_option(name, fitting)
    return fitting


def _literal(text: str) -> Any:
    """Return the value of a text: a number, a truth value, a tuple, or the text itself."""
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


def changed_options(options: Any) -> dict[str, Any]:
    """Return the options that differ from their defaults, by name."""
    default = type(options)()
    values = {name: getattr(options, name) for name in _names(type(options))}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def with_options(metadata: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Return an artifact's metadata: the model's, and "options" with those that differ from their defaults."""
    changed = {key: list(v) if isinstance(v, tuple) else v for key, v in changed_options(options).items()}
    return {**metadata, "options": changed} if changed else dict(metadata)


def format_value(value: Any) -> str:
    """Return a value as users write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(map(format_value, value)) if isinstance(value, tuple) else str(value)


def options_slug(options: Any) -> str:
    """Return the options for the name of a folder: "+batch=4+input=uint8", or "" for the defaults.

    Characters that file names cannot have are replaced, and a short digest keeps the name unique.
    """
    text = "".join(f"+{key}={format_value(value)}" for key, value in changed_options(options).items())
    plain = re.sub(r"[^A-Za-z0-9.=+_-]+", "-", text)[:80]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:4]}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """An option as `zoo formats` lists it.

    Args:
        name: its name.
        default: its default.
        values: all values, the default first; empty if they cannot be listed.
    """

    name: str
    default: Any
    values: tuple[Any, ...]

    @property
    def text(self) -> str:
        """The option and its values: "input=float32|uint8"."""
        return f"{self.name}={'|'.join(map(format_value, self.values or (self.default,)))}"


def choices(kind: type) -> list[Choice]:
    """Return the options of a dataclass."""
    default, types = kind(), typing.get_type_hints(kind)
    listed = []
    for name in _names(kind):
        value, values = getattr(default, name), typing.get_args(types[name])
        values = (True, False) if types[name] is bool else values
        enumerable = types[name] is bool or typing.get_origin(types[name]) is typing.Literal
        others = tuple(other for other in values if other != value)
        listed.append(Choice(name, value, (value, *others) if enumerable else ()))
    return listed
