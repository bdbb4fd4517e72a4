"""The report of a real run, and the demo."""

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
from export.benchmark.measure import _by_runtime, count_cores, describe_machine
from export.benchmark.processes import ForkServer, WorkerProcess
from export.benchmark.statistics import ROUNDS
from export.benchmark.worker import BATCH, read_examples
from export.reporting.artifact_sets import open_artifact_sets
from export.reporting.pick import known_measurements
from training.runs.run import Run
from zoo.common.errors import BadOption, ExportError

FEW = ("onnx", "tflite", "tflite_int8")


@pytest.fixture(scope="module")
def few(artifacts, copied, tmp_path_factory):
    """A copy of the run with few artifacts of runtimes that are quick to import."""
    place = copied(tmp_path_factory.mktemp("few") / "run").path
    for name in FEW:
        shutil.copytree(artifacts[name].folder, place / "exports" / name)
    return place


@pytest.fixture(scope="module")
def reported(few):
    """The result of the command, and the content of the report."""
    from zoo.__main__ import cli

    found = CliRunner().invoke(cli, ["report", str(few)])
    return found, json.loads((few / "report.json").read_text(), parse_constant=pytest.fail)


def test_report_has_the_metrics_of_the_run(few, reported, artifacts, digits_run):
    """Accuracy, confusion, curves and one row per artifact."""
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


def test_report_has_measurements(reported):
    """Latency with one and with all threads, cold start, memory and throughput."""
    _, content = reported
    assert content["machine"]["cores"] == count_cores()
    for row in content["artifacts"]:
        measured = row["measured"]
        assert set(measured["latency"]) == {"1", str(count_cores())}
        assert 0 < row["latency_ms"] <= row["latency_p95_ms"]
        assert row["latency_ms"] == measured["latency"][str(count_cores())]["p50"]
        for latency in measured["latency"].values():
            assert 0 < latency["p50"] <= latency["p95"]
            assert len(latency["rounds"]) == ROUNDS
        cold = measured["cold"]
        assert cold["total"] == pytest.approx(cold["import"] + cold["load"] + cold["first"])
        # A cold start imports the runtime.
        assert cold["import"] > 10
        assert 0 < measured["memory"]["over_import"] < measured["memory"]["peak"]
        assert measured["throughput"]["per_second"] > 0
    rows = {row["name"]: row["measured"]["throughput"] for row in content["artifacts"]}
    assert (rows["tflite"]["batch"], rows["tflite"]["callers"]) == (1, count_cores())
    assert (rows["onnx"]["batch"], rows["onnx"]["callers"]) == (32, 1)


def test_failures_of_a_worker_are_one_line(artifacts, tmp_path):
    """The error of a runtime, and the death of a process, with the artifact's name."""
    artifact = artifacts["tflite"]
    order = {"format": "tflite", "task": "classify", "samples": str(artifact.folder / "samples.npz")}
    broken = tmp_path / "model.tflite"
    shutil.copy(artifact.path, broken)
    broken.write_bytes(broken.read_bytes()[:1000])
    with ForkServer() as server, WorkerProcess(server) as child, WorkerProcess(server) as other:
        with pytest.raises(ExportError, match=r"^it could not be measured: ") as error:
            child.call("open", name="it", artifact={**order, "path": str(broken)}, threads=1, keep_loaded=True)
        assert "\n" not in str(error.value)
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(ExportError, match="it could not be measured: the process was killed by signal 9"):
            child.call("latency", name="it", keep_loaded=True)
        assert other.call(
            "open", name="it", artifact={**order, "path": str(artifact.path)}, threads=1, keep_loaded=True
        )
    assert (child.code, other.code) == (-signal.SIGKILL, -signal.SIGKILL)


def test_a_dead_fork_server_is_one_line():
    """One line, without waiting; its workers end with it."""
    with ForkServer() as server, WorkerProcess(server) as child:
        server.process.kill()
        with pytest.raises(ExportError, match=r"^The benchmark failed: the process was killed by signal 9") as error:
            WorkerProcess(server).__enter__()
        assert "\n" not in str(error.value)
    assert child.code is None


def test_one_process_per_runtime():
    """Keras shares TensorFlow's process; the order of artifacts is preserved."""
    libraries = {"a": "keras", "b": "onnxruntime", "c": "tensorflow", "d": "onnxruntime"}
    orders = {name: {"name": name} for name in libraries}
    found = _by_runtime(orders, {name: {"library": library} for name, library in libraries.items()})
    named = {library: [order["name"] for order in given] for library, given in found.items()}
    assert named == {"tensorflow": ["a", "c"], "onnxruntime": ["b", "d"]}


def test_few_examples_are_read(artifacts):
    """A copy of the examples of one call, not a view of all samples."""
    place = artifacts["tflite"].folder / "samples.npz"
    few = read_examples(place)
    with np.load(place) as file:
        assert len(file["inputs"]) > BATCH == len(few)
        np.testing.assert_array_equal(few, file["inputs"][:BATCH])
    assert few.base is None


@pytest.mark.slow
def test_every_runtime_is_measured(artifacts, copied, tmp_path):
    """Also TensorFlow and Keras, with threads that belong to the process."""
    run = copied(tmp_path / "run")
    for name, artifact in artifacts.items():
        shutil.copytree(artifact.folder, run.exports / name)
    report = export.report(run)
    assert {row["format"] for row in report.artifacts} == set(artifacts)
    assert all(set(row["measured"]["latency"]) == {"1", str(count_cores())} for row in report.artifacts)


def test_several_runs_are_compared(few, reported, tmp_path, zoo_command):
    """Each with a unique name, in a new report; the first run's report is not changed."""
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
    assert len({row["evaluation"] for row in content["artifacts"]}) == 1
    page = (tmp_path / "both" / "report.html").read_text()
    assert "other: tflite_int8" in page
    assert 'id="confusion"' not in page
    assert (few / "report.json").read_bytes() == before


def test_artifacts_without_a_run(few, tmp_path, zoo_command):
    """A folder of artifacts has a report; another folder is refused."""
    shutil.copytree(few / "exports", tmp_path / "copy")
    code, out, _ = zoo_command("report", tmp_path / "copy", "--no-latency", "--json")
    assert code == 0
    content = json.loads(out)
    assert [row["name"] for row in content["artifacts"]] == sorted(FEW)
    assert "zoo train" not in (tmp_path / "copy" / "report.html").read_text()
    (tmp_path / "empty").mkdir()
    code, out, err = zoo_command("report", tmp_path / "empty")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_pick_reads_the_report(few, reported, tmp_path, zoo_command):
    """Measurements of the same files are reused, and the limits apply to them."""
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
    assert json.loads(out)["name"] in FEW


def test_measurements_of_other_files_are_ignored(few, reported):
    """Measurements of other files, of another machine, or in a damaged report are ignored."""
    (found,) = open_artifact_sets([few])
    wanted = {found.label(artifact): artifact for artifact in found.artifacts}
    assert set(known_measurements(few, wanted)) == set(FEW)
    path, text = few / "report.json", (few / "report.json").read_text()
    try:
        digest, processor = wanted["onnx"].manifest["digest"], describe_machine()["processor"]
        for key, value in (("digest", digest), ("processor", processor)):
            path.write_text(text.replace(f'"{key}": "{value}"', f'"{key}": "another"'))
            assert known_measurements(few, wanted) == {}
        path.write_text("{")
        assert known_measurements(few, wanted) == {}
    finally:
        path.write_text(text)


def test_pick_without_artifacts_or_with_wrong_limits(copied, tmp_path, zoo_command):
    copied(tmp_path / "run")
    code, out, err = zoo_command("pick", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "zoo export" in err
    with pytest.raises(TypeError, match="max_memorys"):
        export.pick(tmp_path / "run", max_memorys=2)
    with pytest.raises(BadOption, match="max_memory=-2"):
        export.pick(tmp_path / "run", max_memory=-2)


def test_report_without_artifacts(tmp_path, copied, zoo_command):
    """The report of a run without artifacts shows the command to export."""
    copied(tmp_path / "run")
    code, out, _ = zoo_command("report", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(out)["artifacts"] == []
    assert "zoo export" in (tmp_path / "run" / "report.html").read_text()


def test_report_of_a_changed_artifact_is_refused(tmp_path, few, zoo_command):
    """A report has no metrics of a file that was changed."""
    shutil.copytree(few, tmp_path / "run")
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
    """Every format, as a table and as JSON."""
    code, out, _ = zoo_command("formats", "--json")
    assert code == 0
    assert [f["name"] for f in json.loads(out)] == export.list_formats()
    assert "tflite_int8" in zoo_command("formats")[1]
