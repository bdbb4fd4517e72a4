"""The `zoo` command: lazy commands, their helps, and exit codes."""

from __future__ import annotations

import os
import sys

import click
import pytest

from zoo import __main__ as main
from zoo.common.errors import BadOption, RunError

# Prints the packages that a command imported.
IMPORTS = """
import sys
from zoo.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    assert not error.code, error.code
print(*sorted(sys.modules), file=sys.stderr)
"""


def commands():
    """Return every command by name."""
    context = click.Context(main.cli)
    return {name: main.cli.get_command(context, name) for name in main.COMMANDS}


def test_table_has_every_command_and_its_help():
    """The table equals the commands: their names, modules, and the first sentences of their docstrings."""
    found = commands()
    assert {n: main.Entry(c.callback.__module__, c.get_short_help_str(1000)) for n, c in found.items()} == main.COMMANDS
    for module in {entry.module for entry in main.COMMANDS.values()}:
        defined = {value.name for value in vars(sys.modules[module]).values() if isinstance(value, click.Command)}
        assert defined == {name for name, entry in main.COMMANDS.items() if entry.module == module}


@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_is_whole(zoo_command, monkeypatch, columns):
    """`zoo --help` cuts no help off, at 80 columns too."""
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = zoo_command("--help")
    assert (code, err) == (0, "")
    assert "..." not in out.replace("[ARGS]...", "")
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    for name, entry in main.COMMANDS.items():
        assert f" {name} {entry.help} " in f"{words} "
    assert all(f"\n{title}:\n" in out for title in main.SECTIONS)


def test_help_of_click_alone_is_cut():
    """The control: click's own group cuts a long help off at 80 columns."""
    group = click.Group("zoo", commands={"demo": click.Command("demo", help="Train on real data, " * 5)})
    assert "..." in group.get_help(click.Context(group, max_content_width=80))


@pytest.mark.parametrize("name", main.COMMANDS)
def test_each_command_has_help(zoo_command, monkeypatch, name):
    """Each command explains each of its options."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = zoo_command(name, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: zoo {name}" in out
    assert [p.name for p in commands()[name].params if isinstance(p, click.Option) and not p.help] == []


@pytest.mark.parametrize(
    ("arguments", "imported", "absent"),
    [
        (["--help"], "zoo", {"zoo.commands", "training", "export"}),
        (["list"], "zoo.commands", {"training", "export"}),
        (["recipes"], "training.commands", {"export"}),
        (["formats"], "export.commands", {"export.reporting.commands", "export.inspection.commands"}),
    ],
)
def test_command_imports_its_room_alone(python, arguments, imported, absent):
    """`zoo list` imports neither training nor export; `zoo --help` imports no command."""
    process = python("-c", IMPORTS, *arguments)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert imported in err.split()
    assert absent & set(err.split()) == set()


def values(option):
    """Return an option as written on a command line."""
    if option.is_flag:
        return [option.opts[-1]]
    kinds = {click.INT: "3", click.FLOAT: "0.5"}
    value = option.type.choices[-1] if isinstance(option.type, click.Choice) else kinds.get(option.type, "a=b")
    return [option.opts[-1], value]


@pytest.mark.parametrize("name", main.COMMANDS)
def test_options_before_or_after_arguments(name):
    """Every command reads the same from options before, after and between its arguments."""
    command = commands()[name]
    places = [p for p in command.params if isinstance(p, click.Argument)]
    words = [f"word{i}" for i in range(sum(1 if place.nargs == 1 else 2 for place in places))]
    options = [word for p in command.params if isinstance(p, click.Option) for word in values(p)]
    first, *rest = words or [None]
    orders = ([*options, *words], [*words, *options], [*filter(None, [first]), *options, *rest])
    read = [command.make_context(name, list(order)).params for order in orders]
    assert read[0] == read[1] == read[2]
    assert len(read[0]) == len(command.params)
    assert {word for word in words if word not in str(read[0])} == set()


def with_command(monkeypatch, action):
    """Add a command that runs an action."""
    module = type(sys)("trial_commands")
    module.trial = click.Command("trial", callback=action)
    monkeypatch.setitem(sys.modules, "trial_commands", module)
    monkeypatch.setitem(main.COMMANDS, "trial", main.Entry("trial_commands", "Try."))


def exits(value):
    """Return an action that ends with `sys.exit(value)`."""
    return lambda: sys.exit(value)


def raises(error):
    """Return an action that raises an error."""

    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("action", "code", "line"),
    [
        (lambda: None, 0, ""),
        (exits(None), 0, ""),
        (exits(0), 0, ""),
        (exits(1), 1, ""),
        (exits(3), 3, ""),
        (exits("no disk"), 1, "zoo: no disk\n"),
        (lambda: click.get_current_context().exit(5), 5, ""),
        (lambda: "a value", 0, ""),
        (raises(BadOption("Expected a\nnumber.")), 2, "zoo: Expected a number.\n"),
        (raises(RunError("no run")), 2, "zoo: no run\n"),
        (raises(click.UsageError("wrong")), 2, "zoo: wrong. Received: zoo trial. See: zoo trial --help\n"),
        (raises(KeyboardInterrupt()), 130, "\nzoo: Stopped\n"),
        (
            raises(OSError(28, "No space left", "runs/a")),
            2,
            "zoo: Could not use runs/a: No space left.\n",
        ),
        (
            raises(BrokenPipeError(32, "Broken pipe")),
            2,
            "zoo: A child process ended too early. Received: [Errno 32] Broken pipe. Run the command again.\n",
        ),
    ],
)
def test_exit_code(zoo_command, monkeypatch, action, code, line):
    """Each end has its exit code: a broken pipe to a child process is an error, and `sys.exit(3)` stays 3."""
    with_command(monkeypatch, action)
    assert zoo_command("trial") == (code, "", line)


def test_messages_hold_no_escape_sequences(zoo_command):
    """A terminal does not obey what a file or its name says; other letters stay."""
    code, out, err = zoo_command("evaluate", "\x1b[31mé\x07\udcff")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "\ufffd[31mé\ufffd\ufffd" in err or "\\x1b[31mé\\x07\\udcff" in err
    assert err.rstrip("\n").isprintable()


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["show", "resnet50"], ["--help"]])
def test_closed_pipe_is_no_error(python, arguments):
    """Output to a pipe without a reader ends with 0 and without a message."""
    reader, writer = os.pipe()
    os.close(reader)
    process = python("-m", "zoo", *arguments, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_error_stays_an_error_on_a_closed_pipe(python):
    """The control: a wrong name ends with 2 although nobody reads the output."""
    reader, writer = os.pipe()
    os.close(reader)
    process = python("-m", "zoo", "show", "resnet500", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Did you mean 'resnet50'?" in err
