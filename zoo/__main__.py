"""The `zoo` command: puts the commands of the three rooms together, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import click

from export import commands as export_commands
from export import list_formats
from export.inspection import commands as inspect_commands
from export.reporting import commands as report_commands
from training import commands as training_commands
from zoo import commands as zoo_commands
from zoo.common.errors import ZooError, did_you_mean


class Commands(click.Group):
    """A group that names the nearest command for one it does not have."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        """Return the command that the arguments name."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(f"Expected a command. Received: {args[0]!r}. {did_you_mean(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


# What a room tells of itself to the commands of rooms that may not import it.
ROOMS = {"formats": list_formats}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "obj": ROOMS})
@click.version_option(package_name="keras-zoo", prog_name="zoo")
def zoo() -> None:
    """Keras models by name, trained by recipe, exported as artifacts that are proven equal to their source."""


for _room in (zoo_commands, training_commands, export_commands, report_commands, inspect_commands):
    for _command in vars(_room).values():
        if isinstance(_command, click.Command):
            zoo.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 if all went well, 2 with one line if not, 128 + n when stopped by signal n."""
    # TensorFlow reports devices it does not find as errors; that is noise on a machine without them.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    warnings.formatwarning = lambda message, *_: f"zoo: {message}\n"
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command and return its exit code."""
    try:
        zoo.main(arguments, prog_name="zoo", standalone_mode=False)
    except ZooError as error:
        return _complain(str(error), error.code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        return _complain(f"{error.format_message()} See: {context.command_path if context else 'zoo'} --help", 2)
    except (KeyboardInterrupt, click.Abort):
        return _complain("Stopped", 130)
    except SystemExit:
        # click answers a closed pipe so: whoever read the output has enough.
        return 0
    except OSError as error:
        return _complain(f"{error.filename or 'A file'}: {error.strerror or error}", 2)
    return 0


def _complain(message: str, code: int) -> int:
    """Print one line on standard error and return the code."""
    click.echo(f"zoo: {' '.join(message.split())}", err=True)
    return code


if __name__ == "__main__":
    main()
