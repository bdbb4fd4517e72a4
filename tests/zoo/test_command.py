"""`zoo list`, `zoo show` and how the command fails."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import click.testing
import pytest

import export
import zoo
from zoo import build, commands, counts
from zoo.specs import registry

HEAVY = ["tensorflow", "keras", "numpy", "onnx", "onnxruntime", "ai_edge_litert", "matplotlib", "jinja2", "rich"]


def listed(out):
    """The first column of a printed table, without its head."""
    return [line.split()[0] for line in out.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], zoo.list_models()),
        (["resnet1*"], zoo.list_models("resnet1*")),
        (["resnet1*", "mlp"], zoo.list_models("resnet1*", "mlp")),
        (["--exclude", "resnet*"], zoo.list_models(exclude="resnet*")),
        (["resnet*", "--exclude", "*0", "--exclude", "*_tiny"], zoo.list_models("resnet*", exclude=["*0", "*_tiny"])),
        (["--family", "fcnn"], zoo.list_models(family="fcnn")),
        (["--tag", "small"], [name for name in zoo.list_models() if "small" in zoo.spec(name).tags]),
        (["--tag", "small", "--family", "fcnn"], []),
        (["--pretrained"], zoo.list_models(pretrained=True)),
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


@pytest.mark.parametrize("name", zoo.list_models())
def test_show(zoo_command, name):
    """JSON is the spec, what was counted, the family's options and the formats; the text has the same."""
    spec = zoo.spec(name)
    code, out, err = zoo_command("show", name, "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    options, formats = content.pop("options"), content.pop("formats")
    assert content == spec.to_json() | counts.counts(name)
    assert set(options) == set(build.options_of(registry.models[name]))
    assert formats == [f for f in export.list_formats() if f not in dict(spec.unsupported)]
    code, out, err = zoo_command("show", name)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["name", name]
    assert max(map(len, lines)) <= 100
    text = " ".join(out.split())
    assert f"parameters {spec.params:,}" in text
    assert f"paper {spec.paper}" in text
    assert all(f"\n{option} " in out for option in options)
    assert all(f"\n{entry.source} " in out for entry in spec.weights)
    assert all(f"\n{stage['name']} " in out for stage in content["stages"])
    assert all(fmt in text for fmt in formats)


def test_show_is_a_page(zoo_command):
    """The lines and tables of one model, word for word where nothing but the model decides them."""
    _, out, _ = zoo_command("show", "resnet50")
    lines = [line.rstrip() for line in out.splitlines()]
    for line in (
        "family         resnet",
        "paper          He et al. 2015, arXiv:1512.03385",
        "input          224x224x3, float32, at least 32x32",
        "classes        1,000",
        "parameters     25,557,032",
        "GMACs          4.089",
    ):
        assert line in lines
    head = next(line for line in lines if line.startswith("stage "))
    assert head.split() == ["stage", "layers", "output", "parameters", "GMACs"]
    stem, stage1, folded = lines[lines.index(head) + 1 : lines.index(head) + 4]
    assert stem.split()[-3:] == ["112x112x64", "9,536", "0.118"]
    assert stage1.split()[-3:] == ["56x56x256", "215,808", "0.668"]
    assert folded == " " * head.index("layers") + "1 ZeroPadding2D, 1 MaxPooling2D"
    assert lines[-1].split() == ["head", "1", "GlobalAveragePooling2D,", "1", "Dense", "1000", "2,049,000", "0.002"]
    assert "\x1b" not in out


def test_small_models_have_a_small_unit(zoo_command):
    """Multiply-adds of small models are in kMACs."""
    _, out, _ = zoo_command("show", "perceptron")
    assert "GMACs          0.00000784" in out
    assert out.splitlines()[-2].split()[-1] == "kMACs"
    assert out.splitlines()[-1].split()[-2:] == ["7,850", "7.840"]


def test_show_has_the_variant_s_defaults(zoo_command):
    """Options are shown as the variant sets them, not as the builder does; the block is none."""
    _, out, _ = zoo_command("show", "resnet50", "--json")
    options = json.loads(out)["options"]
    assert options["depths"] == [3, 4, 6, 3]
    assert "block" not in options
    _, out, _ = zoo_command("show", "resnet50")
    assert ["depths", "(3,", "4,", "6,", "3)"] in [line.split() for line in out.splitlines()]
    assert ["activation", "'relu'"] in [line.split() for line in out.splitlines()]


@pytest.fixture
def theirs():
    """A model of someone else that one format cannot have, without a map to mark or an option to choose."""
    reason = "its Reshape has no fixed size, " + "and so on, " * 12 + "as the converter says"
    like = zoo.ModelSpec((8, 8, 3), 5, 4, unsupported=(("onnx", reason),))

    @zoo.register_model("theirs", like, params=24 * 5, family="theirs")
    def theirs(x, head):
        from zoo.common.lazy import keras

        x = keras.layers.Reshape((8, 24), name="rows")(x)
        x = keras.layers.Dense(5, use_bias=False, name="dense")(x)
        return head(keras.layers.GlobalAveragePooling1D(name="mean")(x)) if head.include_top else x

    yield reason
    registry.models._entries.pop("theirs", None)
    registry.models._origins.pop("theirs", None)


@pytest.mark.tensorflow
def test_show_someone_else_s_model(zoo_command, theirs):
    """A plug-in's model is built to be counted; a format it cannot have is named with the reason, folded."""
    code, out, err = zoo_command("show", "theirs")
    assert (code, err) == (0, "")
    assert f"unsupported onnx: {theirs}" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 100
    assert "option" not in out.replace("unsupported", "")
    _, out, _ = zoo_command("show", "theirs", "--json")
    content = json.loads(out)
    assert content["formats"] == [f for f in export.list_formats() if f != "onnx"]
    assert content["unsupported"] == {"onnx": theirs}
    assert [s["name"] for s in content["stages"]] == ["dense", "head"]
    assert content["features"] == []


def test_show_without_the_other_rooms():
    """Without `export` the list of formats is empty."""
    result = click.testing.CliRunner().invoke(commands.show_command, ["mlp", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["formats"] == []


@pytest.mark.parametrize(
    "name", ["resnet_tiny", "mlp", "perceptron", "vgg_tiny", "highway", "densenet_tiny", "resnet152"]
)
def test_plot(zoo_command, tmp_path, name):
    """The picture has a box for each stage with the values of the table; the text is the same as without it."""
    path = tmp_path / "picture.svg"
    _, text, _ = zoo_command("show", name)
    code, out, err = zoo_command("show", name, "--plot", path)
    assert (code, err) == (0, "")
    assert out == f"{text}\nPlot written to {path}\n"
    root = ElementTree.parse(path).getroot()
    labels = ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert name in labels
    for stage in counts.counts(name)["stages"]:
        assert stage["name"] in labels
        assert f"{stage['params']:,} parameters" in labels
        assert " × ".join(map(str, stage["output"])) in labels
        assert all(f"{count} {layer}" in labels for layer, count in stage["layers"].items())
    assert [p.name for p in tmp_path.iterdir()] == ["picture.svg"]


@pytest.mark.parametrize(("file", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
def test_plot_formats(zoo_command, tmp_path, file, start):
    """The suffix chooses the format, an old file is replaced, and the same architecture gives the same bytes."""
    path = tmp_path / file
    path.write_text("old")
    code, out, _ = zoo_command("show", "resnet_tiny", "--json", "--plot", path)
    assert code == 0
    assert json.loads(out)["name"] == "resnet_tiny"
    first = path.read_bytes()
    assert first.startswith(start)
    zoo_command("show", "resnet_tiny", "--plot", path)
    assert path.read_bytes() == first


def test_larger_models_have_larger_plots(zoo_command, tmp_path):
    """The control: other architectures have other plots."""
    for name in ("mlp", "resnet_tiny"):
        zoo_command("show", name, "--plot", tmp_path / f"{name}.png")
    assert (tmp_path / "mlp.png").read_bytes() != (tmp_path / "resnet_tiny.png").read_bytes()


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("picture.txt", "Expected a .png, .svg or .pdf file. Received: "),
        ("picture", "Try picture.png"),
        ("no/such/folder/picture.png", "No such file or directory"),
        ("folder.png", "Is a directory"),
        ("old.txt/picture.png", "Not a directory"),
        ("p" * 300 + ".png", "File name too long"),
    ],
)
def test_plot_that_cannot_be(zoo_command, tmp_path, file, hint):
    """A file that cannot be written is one line and exit code 2; nothing is printed and nothing half-written left."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "old.txt").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = zoo_command("show", "mlp", "--plot", tmp_path / file)
    assert (code, out) == (2, "")
    assert hint in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old.txt").read_text() == "old"


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
