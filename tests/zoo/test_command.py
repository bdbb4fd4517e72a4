"""`zoo list`, `zoo show` and how the command fails."""

from __future__ import annotations

import json

import pytest

import zoo
from zoo import _build, _registry

HEAVY = ["tensorflow", "keras", "numpy", "onnx", "onnxruntime", "ai_edge_litert", "matplotlib", "jinja2", "rich"]


def listed(out):
    """The first column of a printed table, without its head."""
    return [line.split()[0] for line in out.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], zoo.names()),
        (["resnet1*"], zoo.names("resnet1*")),
        (["resnet1*", "mlp"], zoo.names("resnet1*", "mlp")),
        (["--exclude", "resnet*"], zoo.names(exclude="resnet*")),
        (["resnet*", "--exclude", "*0", "--exclude", "*_tiny"], zoo.names("resnet*", exclude=["*0", "*_tiny"])),
        (["--family", "fcnn"], zoo.names(family="fcnn")),
        (["--tag", "small"], [name for name in zoo.names() if "small" in zoo.spec(name).tags]),
        (["--tag", "small", "--family", "fcnn"], []),
        (["nothing*"], []),
    ],
)
def test_list(zoo_command, arguments, expected):
    """Patterns and options choose the rows, as text and as JSON, in natural order."""
    code, out, err = zoo_command("list", *arguments)
    assert (code, err) == (0, "")
    assert out.split()[:2] == ["name", "family"]
    assert listed(out) == expected
    code, out, err = zoo_command("list", *arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [zoo.spec(name).to_json() for name in expected]


def test_list_is_a_table(zoo_command):
    """A row has the numbers of the spec, and no column runs into the next."""
    _, out, _ = zoo_command("list", "resnet50", "mlp")
    head, mlp, resnet = out.splitlines()
    assert head.split() == ["name", "family", "parameters", "input", "classes", "paper"]
    assert mlp.split()[:5] == ["mlp", "fcnn", "203,530", "784", "10"]
    assert resnet.split()[:5] == ["resnet50", "resnet", "25,557,032", "224x224x3", "1000"]
    assert head.index("paper") == mlp.index("Rumelhart") == resnet.index("He et al.")
    assert "\x1b" not in out


@pytest.mark.parametrize("name", zoo.names())
def test_show(zoo_command, name):
    """JSON is the spec and the family's options; text says the same for people."""
    code, out, err = zoo_command("show", name, "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    options = content.pop("options")
    assert content == zoo.spec(name).to_json()
    assert set(options) == set(_build.options_of(_registry.models[name]))
    code, out, err = zoo_command("show", name)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["name", name]
    assert f"{zoo.spec(name).params:,}" in out
    assert zoo.spec(name).paper in out
    assert all(f"{option}: " in out for option in options)


def test_show_has_the_variant_s_defaults(zoo_command):
    """Options are shown as the variant sets them, not as the builder does; the block is none."""
    _, out, _ = zoo_command("show", "resnet50", "--json")
    assert json.loads(out)["options"] == {"depths": [3, 4, 6, 3], "dropout": 0.0, "zero_init": False}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["show", "resnet500"], "Received: name='resnet500'. Did you mean 'resnet50'?"),
        (["show", "resnet500", "--json"], "Did you mean 'resnet50'?"),
        (["show", "line\nbreak"], "Received: name='line"),
        (["show"], "Missing argument 'NAME'"),
        (["show", "mlp", "perceptron"], "unexpected extra argument"),
        (["lst"], "Received: 'lst'. Did you mean 'list'?"),
        (["nonsense"], "Received: 'nonsense'. Known: "),
        (["list", "--familly", "fcnn"], "--family"),
        (["list", "--family"], "requires an argument"),
        (["--nonsense"], "No such option"),
    ],
)
def test_mistake_is_one_line(zoo_command, arguments, hint):
    """A mistake is exit code 2 and one line on standard error that helps; nothing on standard output."""
    code, out, err = zoo_command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("zoo: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert hint in err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(zoo_command, option):
    """Help names every command, with a sentence each."""
    code, out, err = zoo_command(option)
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("  ")}
    for command in ("list", "show", "recipes", "train", "evaluate", "formats", "export", "verify", "report", "demo"):
        assert len(lines[command]) > 2


@pytest.mark.parametrize("command", ["list", "show"])
def test_help_of_a_command(zoo_command, command):
    """Each command explains its options."""
    code, out, err = zoo_command(command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: zoo {command}" in out
    assert "--json" in out


def test_without_arguments(zoo_command):
    """Without a command the help is shown, as an error."""
    code, out, err = zoo_command()
    assert (code, out) == (2, "")
    assert "Usage: zoo " in err
    assert "list" in err


LISTS_WITHOUT = """
import sys
from zoo.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as exit_:
    assert not exit_.code, exit_.code
sys.stderr.write(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--json"], ["show", "resnet50"], ["recipes"], ["formats"], ["train", "--help"]]
)
def test_answers_without_heavy_imports(python, arguments):
    """What there is can be told without TensorFlow, Keras or NumPy in the process."""
    process = python("-c", LISTS_WITHOUT, *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out
    assert set(HEAVY) & set(err.split()) == set()
    assert {"zoo", "click"} <= set(err.split())


def test_heavy_imports_are_seen(python):
    """The control of the test above: a model that is built does import them."""
    process = python("-c", LISTS_WITHOUT.replace("main(sys.argv[1:])", "import zoo; zoo.get('perceptron')"))
    _, err = process.communicate(timeout=120)
    assert {"tensorflow", "keras", "numpy"} <= set(err.split())


def test_python_m_zoo(python):
    """`python -m zoo` is the command."""
    process = python("-m", "zoo", "show", "perceptron")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "7,850" in out


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["show", "resnet50"], ["--help"]])
def test_reader_may_leave(python, arguments):
    """Output into a pipe that nobody reads any more is no error, and no complaint."""
    process = python("-m", "zoo", *arguments)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (0, "")
