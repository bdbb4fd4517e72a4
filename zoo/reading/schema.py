"""Schemas of JSON as Python types: dictionaries with typed keys (TypedDict), lists, unions and plain values."""

from __future__ import annotations

import functools
import math
import types
import typing
from typing import Any

from zoo.common.types import describe

SHOWN = 60  # characters of a value in a message


class Mismatch(ValueError):
    """A value that does not have the type of a schema.

    Args:
        key: its dotted key.
        text: the message, which names the key.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def fit(value: Any, wanted: Any, key: str = "") -> Any:
    """Return a value that has a type, whole numbers as floats where these are wanted.

    Args:
        value: content of JSON.
        wanted: Any, None, bool, int, float (finite), str, dict, list, dict[str, X], list[X], a tuple of fixed length, a
            Literal, a union of these, or a TypedDict: it requires its required keys, and passes keys that it does not
            have.
        key: the dotted key of the value, for messages.

    Raises:
        Mismatch: the value has another type, or lacks a key.
    """
    if wanted is Any:
        return value
    if typing.is_typeddict(wanted):
        return _fit_keys(value, wanted, key)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return _fit_any(value, wanted, key)
    if origin is typing.Literal:
        return (
            value
            if any(value == one and type(value) is type(one) for one in arguments)
            else _refuse(value, wanted, key)
        )
    if origin is dict and type(value) is dict:
        return {name: fit(inner, arguments[1], f"{key}.{name}".lstrip(".")) for name, inner in value.items()}
    if origin is list and type(value) is list:
        return [fit(inner, arguments[0], f"{key}[{place}]") for place, inner in enumerate(value)]
    if origin is tuple and type(value) is list and len(value) == len(arguments):
        return [fit(inner, kind, f"{key}[{i}]") for i, (inner, kind) in enumerate(zip(value, arguments, strict=True))]
    return _fit_plain(value, wanted, key)


def _fit_plain(value: Any, wanted: Any, key: str) -> Any:
    if wanted is float:
        whole = type(value) in (int, float) and math.isfinite(value)
        return float(value) if whole else _refuse(value, wanted, key)
    if value is None and wanted in (None, type(None)):
        return None
    return value if type(value) is wanted else _refuse(value, wanted, key)


def _fit_any(value: Any, wanted: Any, key: str) -> Any:
    """Return the value as the first type of a union that fits."""
    errors = []
    for kind in typing.get_args(wanted):
        try:
            return fit(value, kind, key)
        except Mismatch as error:
            errors.append(error)
    deepest = max(errors, key=lambda error: len(error.key))
    # The message about a key inside says more than one about the union.
    return _refuse(value, wanted, key) if deepest.key == key else _raise(deepest)


def _raise(error: Mismatch) -> Any:
    raise error


def _fit_keys(value: Any, wanted: Any, key: str) -> dict[str, Any]:
    if type(value) is not dict:
        _refuse(value, dict, key)
    missing = sorted(wanted.__required_keys__ - value.keys())
    if missing:
        name = f"{key}.{missing[0]}".lstrip(".")
        raise Mismatch(name, f"{name} is missing")
    kinds = _kinds(wanted)
    known = {name: fit(value[name], kinds[name], f"{key}.{name}".lstrip(".")) for name in kinds.keys() & value.keys()}
    return {name: known.get(name, inner) for name, inner in value.items()}


@functools.cache
def _kinds(wanted: Any) -> dict[str, Any]:
    return typing.get_type_hints(wanted)


def _refuse(value: Any, wanted: Any, key: str) -> Any:
    shown = repr(value)[:SHOWN] if isinstance(value, (str, int, float, bool, type(None))) else describe(type(value))
    kind = "a mapping of keys" if typing.is_typeddict(wanted) or wanted is dict else _described(wanted)
    raise Mismatch(key, f"{key or 'the content'} must be {kind}, not {shown}")


def _described(wanted: Any) -> str:
    """Return a type in words."""
    if typing.is_typeddict(wanted):
        return "a mapping of keys"
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_described, arguments))
    if origin is tuple:
        return f"a list of {len(arguments)} values"
    return "a list" if wanted is list or origin is list else describe(wanted)
