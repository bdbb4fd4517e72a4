"""What a page shows: measurements, the fastest artifact, metrics, data, several runs."""

from __future__ import annotations

from report_content import artifact, measured, render

from export.reporting.pick import Limits, _best

INSPECTION = {
    "opset": 17,
    "weights": {"int8": 270_000, "float32": 1234},
    "int8_weights": 0.995,
    "int8_operators": 0.98,
    "float_fallback": ["softmax", "gelu_1"],
    "unsupported": [],
    "sparsity": {"conv1": 0.801, "conv2": 0.8},
}


def test_measurements_and_inspection(content, tmp_path):
    """Measurements, inspection, and dominated artifacts."""
    rows = [
        artifact("onnx_int8", measured=measured(0.2), inspection=INSPECTION, interval=[0.953, 0.987]),
        artifact("onnx", 1_100_000, measured=measured(0.4), dominated_by="onnx_int8"),
    ]
    content.update(artifacts=rows, machine={"processor": "EPYC", "cores": 2})
    page = render(content, tmp_path)
    for words in (
        "95.3% to 98.7%",
        "dominated by onnx_int8",
        "Measured on 2 cores, EPYC",
        *("171 ms", "150 + 20 + 1", "72.5 MB", "10.7 MB", "25,134/s, batch 32", "0.6 ms"),
        *("int8 270,000, float32 1,234", "99.5%", "98.0%", "softmax, gelu_1", "80% to 80%"),
    ):
        assert words in page.text, words
    assert "nine rounds" in page.text
    assert "nine rounds" not in render({**content, "artifacts": [artifact("onnx")]}, tmp_path).text


def test_the_fastest_artifact(content, tmp_path):
    """Of artifacts without a significant difference of latency, the one that `zoo pick` selects is shown."""
    rows = {name: {**artifact(name), "name": name} for name in ("plain", "pruned")}
    rows["plain"] |= {"measured": measured(0.2), "latency_ms": 0.2, "drop": 0.0}
    rows["pruned"] |= {"measured": measured(0.199), "latency_ms": 0.199, "accuracy": 0.8, "drop": 0.175}
    for change, name, text in (
        ({}, "plain", "0.2 ms plain, 97.5%; 1 not slower"),
        ({"bytes": 1000}, "pruned", "0.199 ms pruned, 80.0%; 1 not slower"),
        ({"measured": measured(0.1), "latency_ms": 0.1}, "pruned", "0.1 ms pruned, 80.0%"),
    ):
        content["artifacts"] = [rows["plain"], {**rows["pruned"], **change}]
        assert _best(content["artifacts"], Limits())["name"] == name
        assert text in render(content, tmp_path).text


def test_metrics_other_than_accuracy(content, tmp_path):
    """The page names the metric, has no interval, and lists different evaluations."""
    content["summary"]["metric"] = "r2"
    content["artifacts"] = [artifact("onnx", metric="r2", evaluation="r2 on 40 examples of diabetes")]
    text = render(content, tmp_path).text
    assert "R² against size" in text
    assert "The metric is R² instead of accuracy" in text
    assert "95% interval 9" not in text
    content["artifacts"].append(artifact("tflite", evaluation="accuracy on 360 examples of digits"))
    text = render(content, tmp_path).text
    assert "2 evaluations (accuracy on 360 examples of digits; r2 on 40 examples of diabetes)" in text


def test_artifacts_without_labels(tmp_path):
    """Without labels, agreement is shown and drawn."""
    rows = [artifact("onnx", accuracy=None, source_accuracy=None, agreement=0.98)]
    summary = {"model": "resnet50", "metric": None, "trained": False}
    page = render({"title": "resnet50", "summary": summary, "artifacts": rows}, tmp_path)
    assert "There are no labels" in page.text
    assert "Agreement against size" in page.text
    assert "zoo train" not in page.text


def test_data(content, tmp_path):
    """The examples of each class, and what was left out, as they were shown before training."""
    counts = {"train": {"cat": 1200, "dog": 7}, "test": {"cat": 3, "dog": 2}}
    content["summary"]["data"] = {"examples": {}, "classes": counts, "notes": ["Left out: 3 files hidden (.png 3)"]}
    text = render(content, tmp_path).text
    row = '<th scope="row">{}</th>' + 2 * '<td class="number">{}</td>'
    page = (tmp_path / "report.html").read_text()
    assert row.format("cat", "1,200", 3) in page
    assert row.format("dog", 7, 2) in page
    assert "Left out: 3 files hidden (.png 3)" in text
    content["summary"]["data"] = {"examples": {"train": 9, "test": 4}, "notes": []}
    render(content, tmp_path)
    assert row.format("examples", 9, 4) in (tmp_path / "report.html").read_text()


def test_several_runs(content, tmp_path):
    """A table of runs instead of curves, and a marker for each run in the plots."""
    run = {"model": "resnet20", "dataset": "digits", "test_accuracy": 0.978, "test_images": 360, "path": "runs/a"}
    rows = [{**artifact("onnx"), "name": f"{name}: onnx", "run": name} for name in ("first", "second")]
    runs = [{**run, "name": "first"}, {**run, "name": "second"}]
    page = render({"title": "first and second", "runs": runs, "artifacts": rows}, tmp_path)
    assert "95.7% to 98.9%" in page.text
    assert "no artifact yet" not in page.text
    runs[1] |= {"artifacts": 0, "path": "runs/b"}
    page = render({"title": "first and second", "runs": runs, "artifacts": rows}, tmp_path)
    assert "second has no artifact yet. zoo export runs/b --all" in page.text
    assert "second: onnx" in page.text
    assert {"runs", "artifacts", "details"} <= set(page.ids)
    assert not {"training", "confusion"} & set(page.ids)
