"""How the command fails, helps and starts: wrong arguments, light imports, closed pipes."""

from __future__ import annotations

import pytest

HEAVY = ["tensorflow", "keras", "numpy", "onnx", "onnxruntime", "ai_edge_litert", "matplotlib", "jinja2", "rich"]


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
        (["list", "--family", "resnett"], "Received: family='resnett'. Did you mean 'resnet'?"),
        (["list", "--tag", "smal"], "Expected the tag of a model. Received: tag='smal'. Did you mean 'small'?"),
        (["--nonsense"], "No such option"),
        (["show", "a\0b"], "Expected arguments without zero bytes. Received: 'a\\x00b'"),
        (["demo", "--recipe", "a\nb"], "Expected the name of a recipe. Received: name='a\\nb'"),
    ],
)
def test_wrong_arguments_are_one_line(zoo_command, arguments, hint):
    """Wrong arguments give exit code 2 and one line on standard error with help; nothing on standard output."""
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
    "arguments",
    [
        *(["list"], ["show", "resnet50", "--json"], ["recipes"], ["formats"]),
        *(
            pytest.param(a, marks=pytest.mark.slow)
            for a in (["list", "--json"], ["show", "resnet50"], ["train", "--help"])
        ),
    ],
)
def test_commands_run_without_heavy_imports(python, arguments):
    """Listing and describing import neither TensorFlow, Keras nor NumPy."""
    process = python("-c", LISTS_WITHOUT, *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out
    assert set(HEAVY) & set(err.split()) == set()
    assert {"zoo", "click"} <= set(err.split())


@pytest.mark.slow
@pytest.mark.tensorflow
def test_heavy_imports_are_seen(python):
    """The control of the test above: a model that is built does import them."""
    process = python("-c", LISTS_WITHOUT.replace("main(sys.argv[1:])", "import zoo; zoo.get('perceptron')"))
    _, err = process.communicate(timeout=120)
    assert {"tensorflow", "keras", "numpy"} <= set(err.split())


def test_plot_imports_matplotlib_alone(python, tmp_path):
    """Plotting imports no framework."""
    process = python("-c", LISTS_WITHOUT, "show", "resnet50", "--plot", tmp_path / "a.png")
    _, err = process.communicate(timeout=120)
    assert set(HEAVY) & set(err.split()) == {"matplotlib", "numpy"}


def test_python_m_zoo(python):
    """`python -m zoo` is the command."""
    process = python("-m", "zoo", "show", "perceptron")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "7,850" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["--help"],
        *(pytest.param(a, marks=pytest.mark.slow) for a in (["list", "--json"], ["show", "resnet50"])),
    ],
)
def test_reader_may_leave(python, arguments):
    """Output into a closed pipe is no error and prints nothing."""
    process = python("-m", "zoo", *arguments)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (0, "")
