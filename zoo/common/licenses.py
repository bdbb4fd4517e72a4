"""Licenses of weights: those that forbid commercial use need an acceptance, a variable that child processes inherit."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import click

from zoo.common.errors import BadOption

NONCOMMERCIAL = "ZOO_ALLOW_NONCOMMERCIAL"
# Identifiers such as cc-by-nc-4.0 and fair-noncommercial-research-license.
FORBIDS = re.compile(r"(?:^|[^a-z])nc(?:$|[^a-z])|non[-_ ]?commercial|research|amlr")


def is_accepted() -> bool:
    """Return whether this process accepts weights that are not for commercial use."""
    return os.environ.get(NONCOMMERCIAL, "").lower() in ("1", "true", "yes", "on")


@contextlib.contextmanager
def accepted() -> Iterator[None]:
    """Accept them in this process and its children, and restore the variable."""
    before = os.environ.get(NONCOMMERCIAL)
    os.environ[NONCOMMERCIAL] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NONCOMMERCIAL]
        else:
            os.environ[NONCOMMERCIAL] = before


def noncommercial_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option --allow-noncommercial to a command."""

    @functools.wraps(command)
    def run(*arguments: Any, allow_noncommercial: bool, **options: Any) -> Any:
        with accepted() if allow_noncommercial else contextlib.nullcontext():
            return command(*arguments, **options)

    text = f"Accept weights that are not for commercial use; the same as {NONCOMMERCIAL}=1."
    return click.option("--allow-noncommercial", is_flag=True, help=text)(run)


def is_noncommercial(license_name: str | None) -> bool:
    """Return whether a license, by its identifier or name, forbids commercial use."""
    return bool(license_name) and bool(FORBIDS.search(license_name.lower()))


def check_license(license_name: str | None, received: str) -> None:
    """Raise BadOption for weights that are not for commercial use, unless the user accepts such.

    Args:
        license_name: identifier of the license, None if it is not known.
        received: the user's argument, for the message.
    """
    if is_noncommercial(license_name) and not is_accepted():
        raise BadOption(
            f"weights must be free for commercial use, unless you accept others. Received: {received} with the "
            f"license {license_name}. Pass --allow-noncommercial, or set {NONCOMMERCIAL}=1."
        )
