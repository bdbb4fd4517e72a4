"""The error classes of all packages: a root, and one leaf per kind of user error, which is also a builtin error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Root of all errors for users; the command prints the message as one line and exits with `code`."""

    code = 2

    # KeyError and similar builtins quote their message; these messages are sentences.
    __str__ = Exception.__str__


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" with the nearest known name, or the first few known names."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if near:
        return f"Did you mean '{near[0]}'?"
    shown = ", ".join(known[:8])
    return f"Known: {shown}{', …' if len(known) > 8 else ''}." if known else "None are registered."
