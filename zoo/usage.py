"""One line for a command line that click refuses: what was expected, what was received, where the help is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import click

# The value in a message of click's types, such as "'x' is not a valid integer."
_VALUE = re.compile(r"'(?P<quoted>.*)' (?:is not|does not|is a )|^(?P<number>\S+) is not in", re.S)


def describe_usage_error(error: click.ClickException, arguments: Sequence[str]) -> str:
    """Return the message of an error with what was received and the command that prints the help.

    Args:
        error: the error, of click's parser or of a command.
        arguments: the whole command line after `zoo`.
    """
    context = getattr(error, "ctx", None)
    message, path = error.format_message().replace("(Did", "Did").replace("?)", "?"), _path(context)
    if "Received:" not in message:
        end = "" if message.endswith((".", "?")) else "."
        message = f"{message}{end} Received: {_received(error, arguments)}."
    return f"{message} See: {path} --help"


def _path(context: click.Context | None) -> str:
    return context.command_path if context else "zoo"


def _received(error: click.ClickException, arguments: Sequence[str]) -> str:
    """Return the value that was refused, or the whole command line."""
    if isinstance(error, click.NoSuchOption):
        return repr(error.option_name)
    if isinstance(error, click.MissingParameter):
        return f"zoo {shlex.join(arguments)}".strip()
    found = _VALUE.search(error.message) if isinstance(error, click.BadParameter) else None
    return repr(found["quoted"] or found["number"]) if found else f"zoo {shlex.join(arguments)}".strip()
