"""The matrix: every small model by every format and compression, each cell green or refused with a reason."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

import export
import training
import zoo
from zoo.common.errors import BadOption, ExportError, ParityError, UnsupportedExport


@pytest.fixture(scope="module")
def matrix(root):
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("matrix", root / "benchmarks" / "matrix.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["matrix"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["matrix"]


def test_every_family_has_a_small_model_and_a_recipe(matrix):
    """Every family is in the matrix."""
    assert {zoo.spec(name).family for name in matrix.models()} == set(zoo.list_families())
    for name in matrix.models():
        recipe, overrides = matrix.recipe_for(name)
        assert 8 <= overrides["epochs"] <= training.get_recipe(recipe).epochs


def test_every_compression_has_a_pipeline(matrix):
    """Each with its options, which parse."""
    for name in export.list_compressions(exclude="their_*"):
        pipeline = matrix.pipeline_of(name, "mlp_tiny")
        assert pipeline.steps[0].compression.name == name
    assert matrix.pipeline_of(matrix.PLAIN, "mlp_tiny") is None


@pytest.mark.parametrize(("error", "state"), [
    (UnsupportedExport("resnet_tiny does not export to onnx: it cannot"), "refused"),
    (BadOption("mixed_precision needs classes"), "refused"),
    (UnsupportedExport("onnx could not be converted: UnsupportedExport: no operator"), "red"),
    (UnsupportedExport("two\nlines"), "red"),
    (ParityError("not equal"), "red"),
    (ExportError("died"), "red"),
])  # fmt: skip
def test_only_errors_before_conversion_are_refusals(matrix, error, state):
    """An error of a converter and a failed verification are red."""
    cell = matrix.cell_of(error)
    assert (cell.state, cell.reason) == (state, str(error))


def test_page_numbers_reasons(matrix):
    """A reason that holds for several cells is printed once, with the names of their models and formats."""
    reason = "{0} does not export to {1}: it has no such operator"
    row = {fmt: {"state": "refused", "reason": reason.format("a_tiny", fmt), "agreement": None} for fmt in ("x", "y")}
    rows = {"a_tiny": row, "b_tiny": {"x": {"state": "green", "reason": "", "agreement": 1.0}, "y": row["y"]}}
    rows["b_tiny"]["y"] = {**row["y"], "state": "red", "reason": "killed"}
    text = matrix.page({"none": rows})
    assert "| a_tiny | (1) | (1) |" in text
    assert "| b_tiny | yes | **red** (2) |" in text
    assert "1. a_tiny does not export to x, y: it has no such operator" in text
    assert "FORMAT" not in text
    assert "\0" not in text
    assert "2. killed" in text


@pytest.mark.slow
def test_a_part_of_it_is_green(matrix, tmp_path, capsys):
    """A model for features, uncompressed and with an int8 compression; finished cells are not computed again."""
    arguments = [
        "--folder", tmp_path / "matrix", "--out", tmp_path / "matrix.md", "--models", "mlp_tiny",
        "--compressions", "none", "mixed_precision", "--formats", "onnx",
    ]  # fmt: skip
    assert matrix.main(list(map(str, arguments))) == 0, capsys.readouterr().out
    done = json.loads((tmp_path / "matrix" / "mlp_tiny" / "none.json").read_text())
    assert {name: cell["state"] for name, cell in done.items()} == {"onnx": "green"}
    assert done["onnx"]["agreement"] == 1.0
    mixed = json.loads((tmp_path / "matrix" / "mlp_tiny" / "mixed_precision.json").read_text())
    assert mixed["onnx"]["state"] == "refused"
    assert "mixed_precision supports tflite_int8" in mixed["onnx"]["reason"]
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "matrix").rglob("*") if p.is_file()}
    assert matrix.main(list(map(str, arguments))) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "matrix").rglob("*") if p.is_file()} == times


def test_a_red_cell_fails(matrix, tmp_path, capsys):
    """A red cell stays red until it is computed again, and the exit code is 1."""
    folder = tmp_path / "matrix" / "mlp_tiny"
    folder.mkdir(parents=True)
    cell = {"state": "red", "reason": "it differs", "agreement": None}
    (folder / "none.json").write_text(json.dumps({"onnx": cell}))
    out = tmp_path / "matrix.md"
    arguments = ["--folder", tmp_path / "matrix", "--out", out, "--models", "mlp_tiny", "--compressions", "none"]
    assert matrix.main([*map(str, arguments), "--formats", "onnx"]) == 1
    assert "mlp_tiny none onnx: it differs" in capsys.readouterr().out
    assert "**red** (1)" in out.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet_tiny", "transformer_tiny", "tagger_tiny"])
def test_all_formats_and_some_compressions_are_not_red(matrix, model, tmp_path, capsys):
    """A model of each task, in every format, uncompressed and pruned; none is red."""
    arguments = ["--folder", tmp_path / "matrix", "--out", tmp_path / "matrix.md", "--models", model]
    code = matrix.main([*map(str, arguments), "--compressions", "none", "prune"])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "No cell is red." in out
