"""The `zoo` command: imports the room of one command, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click

from zoo.common.budgets import resource_error
from zoo.common.disk import describe_os_error
from zoo.common.ending import ending_cleanly
from zoo.common.errors import BadOption, ZooError, did_you_mean, shortened
from zoo.usage import describe_usage_error


class Entry(NamedTuple):
    """A command that is not imported yet.

    Args:
        module: where the command is defined.
        help: the first sentence of its docstring; a test compares the two.
    """

    module: str
    help: str


MODELS, TRAINING = "zoo.commands", "training.commands"
EXPORT, INSPECT, REPORT = "export.commands", "export.inspection.commands", "export.reporting.commands"
PUBLISH, QUANTIZE = "export.publishing.commands", "export.quantization.commands"
# Sections of `zoo --help`: commands by name. `zoo --help` imports none of them.
SECTIONS: dict[str, dict[str, Entry]] = {
    "Models": {
        "list": Entry(MODELS, "List models whose names match PATTERNS (shell wildcards)."),
        "show": Entry(MODELS, "Show the cost, options, published weights and stages of a model."),
        "fetch": Entry(MODELS, "Download published weights into the cache, and check them."),
    },
    "Training": {
        "recipes": Entry(TRAINING, "List recipes with their data, accuracy, time and hardware."),
        "new-recipe": Entry(TRAINING, "Write a recipe file NAME.toml with every option and its default."),
        "lr-find": Entry(TRAINING, "Find a learning rate with a range test."),
        "train": Entry(TRAINING, "Train RECIPE (a name or a .toml file), or resume a run."),
        "launch": Entry(TRAINING, "Train RECIPE with several worker processes on this machine."),
        "tune": Entry(TRAINING, "Search for better values of a recipe's options."),
        "diagnose": Entry(TRAINING, "Diagnose a run and suggest what to change."),
        "evaluate": Entry(TRAINING, "Evaluate a trained run on its validation or test split."),
    },
    "Export": {
        "export": Entry(EXPORT, "Export a trained run, a registry model or a .keras FILE, and verify each artifact."),
        "verify": Entry(EXPORT, "Verify artifacts again: checksums, and outputs against the source model."),
        "push": Entry(PUBLISH, "Push a run or artifacts to the Hugging Face hub, with a model card."),
        "formats": Entry(EXPORT, "List export formats and their options."),
        "compressions": Entry(EXPORT, "List compression methods (pruning, clustering, QAT, …)."),
        "targets": Entry(EXPORT, "List deployment targets and their formats, for `zoo export`."),
        "demo": Entry(EXPORT, "Train on real data, export to every format, verify, and write a report."),
    },
    "Inspection": {
        "inspect": Entry(
            INSPECT, "Inspect a model file (.tflite, .onnx, .keras, SavedModel, OpenVINO) without running it."
        ),
        "report": Entry(REPORT, "Compare artifacts of one or more runs in report.html and report.json."),
        "pick": Entry(REPORT, "Select the best artifact under accuracy, size and latency limits."),
        "debug-quantization": Entry(QUANTIZE, "List the layers by the error that int8 adds, the worst first."),
        "doctor": Entry(INSPECT, "Check every converter and runtime of this environment."),
    },
}
COMMANDS: dict[str, Entry] = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


def _list_formats() -> list[str]:
    """Return the names of the export formats, for `zoo show`: zoo may not import export."""
    import export

    return export.list_formats()


class ClosedPipe(Exception):
    """Standard output is a pipe without a reader."""


class CommandGroup(click.Group):
    """A group that imports a command when it runs, and suggests the nearest name for an unknown one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; returns None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        found = vars(importlib.import_module(COMMANDS[cmd_name].module)).values()
        return next(value for value in found if isinstance(value, click.Command) and value.name == cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        """Return the command that the arguments name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"Expected a command. Received: {args[0]!r}. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its whole one-line help, by section."""
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.help) for name, entry in commands.items()])

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments; prints the help if they ask for it."""
        with _closed_pipe():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _closed_pipe():
            return super().invoke(ctx)


@contextlib.contextmanager
def _closed_pipe() -> Iterator[None]:
    """Raise ClosedPipe if standard output has no reader, and ZooError for a broken pipe to a child process."""
    try:
        yield
    except BrokenPipeError as error:
        if _stdout_is_closed():
            raise ClosedPipe from error
        # click would end without a message.
        raise ZooError(f"A child process ended too early. Received: {error}. Run the command again.") from error


def _stdout_is_closed() -> bool:
    """Return whether standard output is a pipe without a reader; if so, point it to the null device."""
    try:
        number = sys.stdout.fileno()
    except OSError:  # io.UnsupportedOperation: it is no file
        return False
    output = select.poll()
    output.register(number, 0)
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        return False
    # Python flushes once more at its end, and would report the error there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


@click.group(
    cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "obj": {"formats": _list_formats}}
)
@click.version_option(package_name="keras-zoo", prog_name="zoo")
def cli() -> None:
    """Train Keras models by recipe, and export them as verified artifacts for phones, browsers and servers."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 if it succeeds, 2 with one line if not, 128 + n when stopped by signal n."""
    # TensorFlow logs an error for each accelerator that it does not find.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.formatwarning = lambda message, *_: f"zoo: {_printable(str(message))}\n"
    sys.exit(_run(arguments))


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise BadOption for a zero byte, which no path has."""
    for argument in arguments:
        if "\0" in argument:
            raise BadOption(f"Expected arguments without zero bytes. Received: {argument!r}")


def _run(arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code."""
    try:
        _check_arguments(arguments or ())
        with ending_cleanly():
            code = cli.main(arguments, prog_name="zoo", standalone_mode=False)
    except ZooError as error:
        return _print_error(str(error), error.code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        given = sys.argv[1:] if arguments is None else arguments
        return _print_error(describe_usage_error(error, given), 2)
    except (KeyboardInterrupt, click.Abort):
        return _print_error("Stopped", 130)
    except ClosedPipe:
        return 0
    except SystemExit as error:
        return _exit_code(error)
    except OSError as error:
        return _print_error(describe_os_error(error), 2)
    except Exception as error:
        known = resource_error(error)
        if known is None:
            raise
        return _print_error(str(known), known.code)
    # click returns the code of `Context.exit`, and what a command returns otherwise.
    return code if isinstance(code, int) else 0


def _exit_code(error: SystemExit) -> int:
    """Return the exit code of `sys.exit`, as Python does: 0 without a value, 1 with a text, which is printed."""
    if error.code is None or isinstance(error.code, int):
        return int(error.code or 0)
    return _print_error(str(error.code), 1)


def _print_error(message: str, code: int) -> int:
    """Print one line on standard error and return the code."""
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"zoo: {_printable(shortened(message))}", err=True)
    return code


def _printable(message: str) -> str:
    """Return a message in one line, without what a terminal would obey: names in files may have escape sequences."""
    line = " ".join(message.split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


if __name__ == "__main__":
    main()
