"""The error classes of all packages: a root, and one leaf per kind of user error, which is also a builtin error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

# Similarity from which a name is suggested.
NEAR = 0.5
# Characters of a value, and of all that is received, that a message repeats; from LONG on it is cut without a look.
VALUE, VALUES, LONG = 200, 1000, 20_000
# A quoted value, with or without an apostrophe of its own, or one without spaces.
_LONG_VALUE = re.compile(
    rf"(?<!\w)([\"'])((?:(?!\1(?!\w)).){{{VALUE},}})(?=\1(?!\w))|(?P<bare>[^\s\"']{{{VALUE},}})", re.S
)


def shortened(message: str) -> str:
    """Return a message in which no value that the user gave is longer than some 200 characters."""
    if len(message) > LONG:
        message = f"{message[: LONG // 2]}…{message[-LONG // 2 :]}"
    message = _LONG_VALUE.sub(_shorten, message)
    head, mark, received = message.partition("Received: ")
    if len(received) > VALUES:
        received = f"{received[:VALUE]} … {received[-VALUE:]}"
    return f"{head}{mark}{received}"


def _shorten(found: re.Match[str]) -> str:
    value = found["bare"] or found[2]
    kept = value[: VALUE // 2]
    return f"{'' if found['bare'] else found[1]}{kept}…"


class ZooError(Exception):
    """Root of all errors for users; the command prints the message as one line and exits with `code`.

    `completed` has the results that were finished before the error, if one of several failed, and is empty otherwise.
    """

    code = 2
    completed: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """Return the message, with long values shortened; KeyError and similar builtins would quote it."""
        return shortened(Exception.__str__(self))


class UnknownName(ZooError, LookupError):
    """A name that is not in a registry, a recipe or a list of options."""


class DuplicateName(ZooError, ValueError):
    """A name that is already registered."""


class BadOption(ZooError, ValueError):
    """An option of the wrong type or value, or one that does not apply."""


class DataError(ZooError, ValueError):
    """Data that is missing, unreadable or of another content than expected."""


class MissingDependency(ZooError, ImportError):
    """A required optional package that is not installed."""


class UnsupportedExport(ZooError, NotImplementedError):
    """A model that a format or compression does not support, with the reason."""


class ExportError(ZooError, RuntimeError):
    """A conversion that failed in the converter."""


class ParityError(ZooError, ArithmeticError):
    """An artifact that failed verification against its source model or its manifest."""


class TrainingError(ZooError, ArithmeticError):
    """Training that cannot continue, such as with a loss that is not finite."""


class RunError(ZooError, OSError):
    """A run directory that is missing, unfinished, damaged, in use or of another version."""


def did_you_mean(name: str, known: Iterable[str], synonyms: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return "Did you mean 'x'?" with the nearest known name, or the first few known names.

    Case, "-", "_" and spaces do not matter; an abbreviation by initials matches ("lr", "learning_rate"), and so does a
    part of a dotted name ("batch_size", "data.batch_size").

    Args:
        name: the unknown name.
        known: the names that exist; dotted if `name` may be.
        synonyms: names from other libraries, by the last part of a dotted name.
    """
    known = sorted(known)
    scores = {other: _similarity(str(name), other, synonyms) for other in known}
    best = max(scores, key=scores.__getitem__, default="")
    if best and scores[best] >= NEAR:
        return f"Did you mean '{best}'?"
    shown = ", ".join(known[:8])
    return f"Known: {shown}{', …' if len(known) > 8 else ''}." if known else "None are registered."


def _similarity(name: str, other: str, synonyms: Mapping[str, str]) -> float:
    """Return how likely `other` is meant by `name`, 0 to 1 and more: the last parts count most, then the tables."""
    (table, last), (other_table, other_last) = (text.rpartition(".")[::2] for text in (name, other))
    likeness = _part_similarity(last, other_last, synonyms)
    if not (table or other_table):
        return likeness
    tables = _ratio(table, other_table) if table and other_table else 0.4 * (not table) + 0.2 * (not other_table)
    if likeness < NEAR:
        return 0.0
    # A misspelt table beats another table; a short key beats a long one.
    return likeness * (0.7 + 0.3 * tables) - 0.01 * other.count(".")


def _part_similarity(name: str, other: str, synonyms: Mapping[str, str]) -> float:
    plain, other_plain = _plain(name), _plain(other)
    if plain == other_plain:
        return 1.0
    if synonyms.get(name.lower()) == other:
        return 0.95
    words = other.lower().split("_")
    if len(words) > 1 and plain == "".join(word[:1] for word in words):
        return 0.9
    return 0.9 * _ratio(plain, other_plain)


def _ratio(one: str, other: str) -> float:
    import difflib

    return difflib.SequenceMatcher(None, one, other).ratio()


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in "_- ")
