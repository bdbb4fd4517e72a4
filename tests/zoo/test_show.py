"""`zoo list` and `zoo show`: the names, the numbers and the options that they print."""

from __future__ import annotations

import json

import click.testing
import pytest

import export
import zoo
from zoo import build, commands, counts
from zoo.specs import registry


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
