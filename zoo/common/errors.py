"""The error tree: every error a user can cause, each also the builtin that a caller would expect."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Root of all errors raised on purpose; the command prints its message as one line and exits with `code`."""

    code = 2

    # KeyError and its kin quote their message when printed; ours is a sentence for people.
    __str__ = Exception.__str__


class UnknownName(ZooError, LookupError):
    """A name that no registry, recipe or option list holds."""


class DuplicateName(ZooError, ValueError):
    """A name registered twice."""


class BadOption(ZooError, ValueError):
    """An option of the wrong type or value, or one that cannot apply."""


class DataError(ZooError, ValueError):
    """Data that cannot be read, is missing, or is not what its place promises."""


class MissingDependency(ZooError, ImportError):
    """An optional package that is needed and not installed."""


class UnsupportedExport(ZooError, NotImplementedError):
    """A model and a format that do not go together, with the reason."""


class ExportError(ZooError, RuntimeError):
    """A conversion that failed inside the converter."""


class ParityError(ZooError, ArithmeticError):
    """An artifact that is not equal to its source, or no longer what its manifest says."""


class TrainingError(ZooError, ArithmeticError):
    """Training that cannot go on, such as a loss that is not finite."""


class RunError(ZooError, OSError):
    """A run directory that is missing, unfinished, damaged, in use or of another version."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" with the nearest known name, or the first few names there are."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if near:
        return f"Did you mean '{near[0]}'?"
    shown = ", ".join(known[:8])
    return f"Known: {shown}{', …' if len(known) > 8 else ''}." if known else "None are registered."
