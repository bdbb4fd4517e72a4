"""`zoo show --plot`: a picture of the stages, its formats, and files that cannot be written."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from zoo import counts


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
