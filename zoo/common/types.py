"""Type checks and lossless conversions of user values: options, overrides and recipe files."""

from __future__ import annotations

import types
import typing
from typing import Any

from zoo.common.errors import BadOption


def fit_type(value: Any, wanted: Any, name: str) -> Any:
    """Return `value` converted to the type `wanted`, or raise BadOption.

    Conversions are lossless: a whole number becomes a float, a list a tuple. A string never becomes a number, and a
    number never a boolean.

    Args:
        value: the received value.
        wanted: a type: bool, int, float, str, tuple[X, ...], dict, Literal[...], or a union of these with None.
        name: name of the value in the message.
    """
    try:
        return _fit(value, wanted)
    except (TypeError, OverflowError):
        raise BadOption(f"{name} must be {describe(wanted)}. Received: {name}={value!r}") from None


def describe(wanted: Any) -> str:
    """Return a type in words, such as "a list of whole numbers"."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list of {describe(arguments[0]).partition(' ')[2]}s"
    words = {bool: "a true or false", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}
    words[type(None)] = "null"
    return words.get(origin or wanted, f"a {getattr(wanted, '__name__', wanted)}")


def _fit(value: Any, wanted: Any) -> Any:
    """Return the value converted to the wanted type, or raise TypeError."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return _fit_any(value, arguments)
    if origin is typing.Literal:
        return _fit_one(value, arguments)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        return tuple(_fit(v, arguments[0]) for v in value)
    if wanted is float and type(value) is int:
        return float(value)
    plain = origin or wanted
    if plain is Any or type(value) is plain:
        return value
    raise TypeError


def _fit_one(value: Any, wanted: tuple[Any, ...]) -> Any:
    """Return the value if it equals a wanted value of the same type, or raise TypeError."""
    if any(value == one and type(value) is type(one) for one in wanted):
        return value
    raise TypeError


def _fit_any(value: Any, wanted: tuple[Any, ...]) -> Any:
    """Return the value converted to the first type of a union that fits, or raise TypeError."""
    for one in wanted:
        try:
            return _fit(value, one)
        except TypeError:
            continue
    raise TypeError
