"""The report of a real run, and the demo from its beginning to its end."""

from __future__ import annotations

import json
import re

import pytest

import export
from training._run import Run


def test_report_says_what_the_run_and_its_artifacts_say(artifacts, digits_run, zoo_command):
    """Accuracy, confusion, curves and one row an artifact, each with its latency measured now."""
    code, out, _ = zoo_command("report", digits_run.path)
    assert (code, out.strip()) == (0, str(digits_run.path / "report.html"))
    content = json.loads((digits_run.path / "report.json").read_text(), parse_constant=pytest.fail)
    result = digits_run.result()
    assert content["summary"]["test_accuracy"] == result["test"]["accuracy"]
    assert content["confusion"] == result["test"]["confusion"]
    assert sum(map(sum, content["confusion"])) == 360
    assert [row["epoch"] for row in content["curves"]] == list(range(1, digits_run.recipe.epochs + 1))
    rows = {row["format"]: row for row in content["artifacts"]}
    assert set(rows) == set(artifacts)
    for name, row in rows.items():
        assert (digits_run.path / row["path"]) == artifacts[name].path
        assert row["accuracy"] == artifacts[name].parity["accuracy"]
        assert 0 < row["latency_ms"] <= row["latency_p95_ms"]
        assert 0 < row["gzip_bytes"] <= row["bytes"]
    page = (digits_run.path / "report.html").read_text()
    assert all(name in page for name in rows)
    assert page.count("<svg") >= 4


def test_report_without_artifacts(tmp_path, digits_run, zoo_command):
    """A run that was not exported has a report too, which says how to."""
    import shutil

    shutil.copytree(digits_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("exports", "report.*"))
    code, out, _ = zoo_command("report", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(out)["artifacts"] == []
    assert "zoo export" in (tmp_path / "run" / "report.html").read_text()


def test_report_of_a_spoilt_artifact_is_refused(tmp_path, artifacts, digits_run, zoo_command):
    """A report never quotes figures of a file that has changed since."""
    import shutil

    shutil.copytree(digits_run.path, tmp_path / "run")
    with open(tmp_path / "run" / "exports" / "onnx" / "model.onnx", "ab") as file:
        file.write(b"x")
    code, out, err = zoo_command("report", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "model.onnx was changed" in err


@pytest.mark.slow
def test_demo(tmp_path, quick, zoo_command):
    """Train, export to every format, verify, report: one table and the path of the report."""
    overrides = [f"--set={key}={value}" for key, value in {**quick, "epochs": 3}.items()]
    code, out, err = zoo_command("demo", "--run", tmp_path / "run", *overrides)
    assert code == 0, err
    assert all(name in out for name in export.formats.names())
    assert re.search(r"Report: .*report\.html", out)
    assert Run.open(tmp_path / "run").finished
    assert {p.name for p in (tmp_path / "run" / "exports").iterdir()} == set(export.formats.names())


def test_formats_command(zoo_command):
    """Every format with a line for people, and JSON for machines."""
    code, out, _ = zoo_command("formats", "--json")
    assert code == 0
    assert [f["name"] for f in json.loads(out)] == export.formats.names()
    assert "tflite_int8" in zoo_command("formats")[1]
