"""The report of a real run, and the demo from its beginning to its end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
from click.testing import CliRunner

import export
from export.benchmark.latency import ROUNDS
from export.benchmark.measure import Child, Nursery, _gathered, cores, machine
from export.benchmark.worker import AT_ONCE, examples
from export.reporting.pick import known_measurements
from export.reporting.sources import open_subjects
from training.runs.run import Run
from zoo.common.errors import BadOption, ExportError

FEW = ("onnx", "tflite", "tflite_int8")


@pytest.fixture(scope="module")
def few(artifacts, digits_run, tmp_path_factory):
    """A copy of the run with few artifacts, whose runtimes are quick to import."""
    place = tmp_path_factory.mktemp("few") / "run"
    shutil.copytree(digits_run.path, place, ignore=shutil.ignore_patterns("exports", "report.*"))
    for name in FEW:
        shutil.copytree(artifacts[name].folder, place / "exports" / name)
    return place


@pytest.fixture(scope="module")
def reported(few):
    """What the command returns for it, and the content of the report."""
    from zoo.__main__ import COMMANDS

    found = CliRunner().invoke(zoo, ["report", str(few)])
    return found, json.loads((few / "report.json").read_text(), parse_constant=pytest.fail)


def test_report_says_what_the_run_and_its_artifacts_say(few, reported, artifacts, digits_run):
    """Accuracy, confusion, curves and one row an artifact."""
    found, content = reported
    assert (found.exit_code, found.output.strip()) == (0, str(few / "report.html"))
    result = digits_run.result()
    assert content["summary"]["test_accuracy"] == result["test"]["accuracy"]
    assert content["confusion"] == result["test"]["confusion"]
    assert sum(map(sum, content["confusion"])) == 360
    assert [row["epoch"] for row in content["curves"]] == list(range(1, digits_run.recipe.epochs + 1))
    rows = {row["name"]: row for row in content["artifacts"]}
    assert set(rows) == set(FEW)
    for name, row in rows.items():
        assert (few / row["path"]).name == artifacts[name].path.name
        assert row["accuracy"] == artifacts[name].parity["accuracy"]
        assert row["interval"][0] < row["accuracy"] < row["interval"][1]
        assert row["drop"] == pytest.approx(row["source_accuracy"] - row["accuracy"])
        assert 0 < row["gzip_bytes"] <= row["bytes"]
        assert row["digest"] == artifacts[name].manifest["digest"]
    page = (few / "report.html").read_text()
    assert all(name in page for name in rows)
    assert page.count("<svg") >= 4


def test_report_says_what_was_measured(reported):
    """Each artifact with one and with all threads, cold, and how much memory it took."""
    _, content = reported
    assert content["machine"]["cores"] == cores()
    for row in content["artifacts"]:
        measured = row["measured"]
        assert set(measured["latency"]) == {"1", str(cores())}
        assert 0 < row["latency_ms"] <= row["latency_p95_ms"]
        assert row["latency_ms"] == measured["latency"][str(cores())]["p50"]
        for latency in measured["latency"].values():
            assert 0 < latency["p50"] <= latency["p95"]
            assert len(latency["rounds"]) == ROUNDS
        cold = measured["cold"]
        assert cold["total"] == pytest.approx(cold["import"] + cold["load"] + cold["first"])
        # Each was started cold: its runtime had not been imported in the process that measured it.
        assert cold["import"] > 10
        assert 0 < measured["memory"]["over_import"] < measured["memory"]["peak"]
        assert measured["throughput"]["per_second"] > 0
    rows = {row["name"]: row["measured"]["throughput"] for row in content["artifacts"]}
    assert (rows["tflite"]["batch"], rows["tflite"]["callers"]) == (1, cores())
    assert (rows["onnx"]["batch"], rows["onnx"]["callers"]) == (32, 1)


def test_what_cannot_be_loaded_is_named(artifacts, tmp_path):
    """A runtime's own complaint in one line; so is the death of a process, by name."""
    artifact = artifacts["tflite"]
    order = {"format": "tflite", "task": "classify", "samples": str(artifact.folder / "samples.npz")}
    broken = tmp_path / "model.tflite"
    shutil.copy(artifact.path, broken)
    broken.write_bytes(broken.read_bytes()[:1000])
    with Nursery() as nursery, Child(nursery) as child, Child(nursery) as other:
        with pytest.raises(ExportError, match=r"^it could not be measured: ") as error:
            child.ask("open", name="it", artifact={**order, "path": str(broken)}, threads=1, keep=True)
        assert "\n" not in str(error.value)
        os.kill(child.number, signal.SIGKILL)
        with pytest.raises(ExportError, match="it could not be measured: the process was killed by signal 9"):
            child.ask("burst", name="it", keep=True)
        assert other.ask("open", name="it", artifact={**order, "path": str(artifact.path)}, threads=1, keep=True)
    assert (child.code, other.code) == (-signal.SIGKILL, -signal.SIGKILL)


def test_a_nursery_that_died_is_named():
    """One line, and no waiting; those that it forked end with it."""
    with Nursery() as nursery, Child(nursery) as child:
        nursery._process.kill()
        with pytest.raises(
            ExportError, match=r"^Nothing could be measured: the process was killed by signal 9"
        ) as error:
            Child(nursery).__enter__()
        assert "\n" not in str(error.value)
    assert child.code is None


def test_processes_have_a_runtime_each():
    """Keras is TensorFlow within, which is not imported twice for it; the order of artifacts stays."""
    libraries = {"a": "keras", "b": "onnxruntime", "c": "tensorflow", "d": "onnxruntime"}
    orders = {name: {"name": name} for name in libraries}
    found = _gathered(orders, {name: {"library": library} for name, library in libraries.items()})
    named = {library: [order["name"] for order in given] for library, given in found.items()}
    assert named == {"tensorflow": ["a", "c"], "onnxruntime": ["b", "d"]}


def test_few_examples_are_held(artifacts):
    """As many as a call takes, whatever lies beside the artifact, and not as a part of all of them."""
    place = artifacts["tflite"].folder / "samples.npz"
    few = examples(place)
    with np.load(place) as file:
        assert len(file["inputs"]) > AT_ONCE == len(few)
        np.testing.assert_array_equal(few, file["inputs"][:AT_ONCE])
    assert few.base is None


@pytest.mark.slow
def test_every_runtime_is_measured(artifacts, digits_run):
    """TensorFlow and Keras too, whose threads belong to the process."""
    content = export.report(digits_run)
    assert {row["format"] for row in content["artifacts"]} == set(artifacts)
    assert all(set(row["measured"]["latency"]) == {"1", str(cores())} for row in content["artifacts"])


def test_several_runs_are_compared(few, reported, tmp_path, zoo_command):
    """Each with a name of its own, in a report of its own; the first run's stays as it was."""
    other = tmp_path / "other"
    shutil.copytree(few, other, ignore=shutil.ignore_patterns("report.*"))
    before = (few / "report.json").read_bytes()
    code, out, err = zoo_command("report", few, other, few, "--no-latency", "--out", tmp_path / "both")
    assert (code, out.strip(), err) == (0, str(tmp_path / "both" / "report.html"), "")
    content = json.loads((tmp_path / "both" / "report.json").read_text())
    assert [run["name"] for run in content["runs"]] == ["run", "other"]
    assert {row["name"] for row in content["artifacts"]} == {
        f"{run}: {name}" for run in ("run", "other") for name in FEW
    }
    assert len({row["question"] for row in content["artifacts"]}) == 1
    page = (tmp_path / "both" / "report.html").read_text()
    assert "other: tflite_int8" in page
    assert 'id="confusion"' not in page
    assert (few / "report.json").read_bytes() == before


def test_artifacts_without_a_run(few, tmp_path, zoo_command):
    """A folder of artifacts is reported on too; one of anything else is not."""
    shutil.copytree(few / "exports", tmp_path / "shipped")
    code, out, _ = zoo_command("report", tmp_path / "shipped", "--no-latency", "--json")
    assert code == 0
    content = json.loads(out)
    assert [row["name"] for row in content["artifacts"]] == sorted(FEW)
    assert "zoo train" not in (tmp_path / "shipped" / "report.html").read_text()
    (tmp_path / "empty").mkdir()
    code, out, err = zoo_command("report", tmp_path / "empty")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_pick_reads_the_report(few, reported, tmp_path, zoo_command):
    """What was measured of these very files is not measured again, and what is asked for is picked by it."""
    run = tmp_path / "run"
    shutil.copytree(few, run)
    content = json.loads((run / "report.json").read_text())
    for row in content["artifacts"]:
        quick = row["format"] == "onnx"
        for latency in row["measured"]["latency"].values():
            latency |= {"p50": 0.5 if quick else 50.0, "rounds": [0.5 if quick else 50.0] * 9}
    (run / "report.json").write_text(json.dumps(content))
    code, out, err = zoo_command("pick", run, "--max-drop", "0.5", "--max-mb", 2, "--max-ms", 5)
    assert (code, err) == (0, "")
    assert out.startswith(f"onnx  {run}")
    assert "50 ms > 5" in out
    found = export.pick(run, runtime="tflite", prefer="size")
    assert found.path == run / "exports" / found.name / "model.tflite"
    assert set(found.others) == {"tflite", "tflite_int8"} - {found.name}
    code, out, err = zoo_command("pick", run, "--max-drop", "0.5", "--max-mb", "0.001")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Relax: --max-mb" in err
    relaxed = err.strip().rpartition("Relax: ")[2].rstrip(".").split()
    code, out, _ = zoo_command("pick", run, "--max-drop", "0.5", "--json", *relaxed)
    assert code == 0
    assert json.loads(out)["artifact"] in FEW


def test_pick_measures_what_the_report_does_not_know(few, reported):
    """An altered file is refused; measurements of other files or of another machine are none."""
    subject = open_subjects([few])[0]
    wanted = {subject.label(artifact): artifact for artifact in subject.artifacts}
    assert set(known_measurements(few, wanted)) == set(FEW)
    path, text = few / "report.json", (few / "report.json").read_text()
    try:
        for key, value in (("digest", wanted["onnx"].manifest["digest"]), ("processor", machine()["processor"])):
            path.write_text(text.replace(f'"{key}": "{value}"', f'"{key}": "another"'))
            assert known_measurements(few, wanted) == {}
        path.write_text("{")
        assert known_measurements(few, wanted) == {}
    finally:
        path.write_text(text)


def test_pick_without_artifacts_or_with_wrong_limits(digits_run, tmp_path, zoo_command):
    shutil.copytree(digits_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("exports", "report.*"))
    code, out, err = zoo_command("pick", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "zoo export" in err
    with pytest.raises(BadOption, match="Did you mean 'max_memory'"):
        export.pick(tmp_path / "run", max_memorys=2)


def test_report_without_artifacts(tmp_path, digits_run, zoo_command):
    """A run that was not exported has a report too, which says how to."""
    shutil.copytree(digits_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("exports", "report.*"))
    code, out, _ = zoo_command("report", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(out)["artifacts"] == []
    assert "zoo export" in (tmp_path / "run" / "report.html").read_text()


def test_report_of_a_spoilt_artifact_is_refused(tmp_path, artifacts, digits_run, zoo_command):
    """A report never quotes figures of a file that has changed since."""
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
    assert all(name in out for name in export.list_formats())
    assert re.search(r"Report: .*report\.html", out)
    assert Run.open(tmp_path / "run").finished
    assert {p.name for p in (tmp_path / "run" / "exports").iterdir()} == set(export.list_formats())


def test_formats_command(zoo_command):
    """Every format with a line for people, and JSON for machines."""
    code, out, _ = zoo_command("formats", "--json")
    assert code == 0
    assert [f["name"] for f in json.loads(out)] == export.list_formats()
    assert "tflite_int8" in zoo_command("formats")[1]
