"""The files of a report, and their robustness against any content."""

from __future__ import annotations

import copy
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from export.reporting.comparison import wilson_interval
from export.reporting.formatting import percent, size
from export.reporting.pick import Limits, _best
from export.reporting.plots.tradeoff import Point, is_dominated
from export.reporting.report import write_report
from export.reporting.tables import artifact_table
from export.reporting.training_plots import confused_pairs
from zoo.common.errors import RunError

HOSTILE = "<script>alert('x')</script> --> ]]> $\\frac{ \x00\x1b"


def artifact(name, count=312344, **changes):
    row = {
        "format": name,
        "compression": None,
        "path": f"exports/{name}/model",
        "bytes": count,
        "gzip_bytes": count // 2,
        "latency_ms": 0.21,
        "latency_p95_ms": 0.25,
        "threads": 2,
        "batch": 1,
        "accuracy": 0.975,
        "source_accuracy": 0.978,
        "agreement": 0.994,
        "max_difference": 0.31,
        "mean_difference": 0.02,
        "relative": 0.03,
        "images": 360,
        "tolerance": {"relative": 0.25, "agreement": 0.97, "drop": 0.006},
        "passed": True,
    }
    return {**row, **changes}


def confusion(classes):
    return [[9 if i == j else int((i + 1) % classes == j) for j in range(classes)] for i in range(classes)]


def content_of_a_run():
    curve = {"loss": 2.1, "accuracy": 0.3, "val_loss": 1.9, "val_accuracy": 0.4, "learning_rate": 0.01}
    return {
        "title": "digits_resnet",
        "run": "runs/digits_resnet/20261120-210000-ab12",
        "created": "2026-11-20T21:00:00+00:00",
        "summary": {
            "model": "resnet20",
            "parameters": 269722,
            "input": [8, 8, 1],
            "classes": 4,
            "dataset": "digits",
            "train_images": 1293,
            "validation_images": 144,
            "test_images": 360,
            "epochs": 2,
            "seconds": 41.2,
            "seed": 1,
            "test_accuracy": 0.978,
            "test_loss": 0.09,
            "hardware": "2 CPU cores",
            "versions": {"keras": "3.15.1"},
        },
        "recipe": {"optimizer": {"learning_rate": 0.05}, "augment": ["shift"]},
        "curves": [{"epoch": 1, **curve}, {"epoch": 2, **curve, "val_loss": math.nan}],
        "labels": ["zero", "one", "two", "three"],
        "confusion": confusion(4),
        "artifacts": [
            artifact("tflite_int8"),
            artifact("onnx", 1101344, passed=False, max_difference=math.inf),
        ],
    }


@pytest.fixture
def content():
    return content_of_a_run()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of that content, and the folder with its files."""
    folder = tmp_path_factory.mktemp("written")
    return render(content_of_a_run(), folder), folder


class Page(HTMLParser):
    """Collects elements, links and visible text, and checks that elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.open, self.text = set(), [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action", "poster")]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def render(content, folder):
    page = Page(write_report(content, folder).read_text(encoding="utf-8"))
    assert not page.open
    page.text = " ".join(page.text.split())
    return page


def test_both_files_have_the_metrics(content, written):
    page, folder = written
    for words in (
        "97.8%",
        "95% interval 95.7% to 98.9%",
        "resnet20 on digits",
        "269,722",
        "1 of 2",
        "312 kB",
        "−0.3",
    ):
        assert words in page.text
    for words in ("zero", "optimizer.learning_rate", "versions.keras", "✗ failed", "2026-11-20 21:00 UTC"):
        assert words in page.text
    stored = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert stored["summary"] == content["summary"]
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]


def test_json_is_strict(content, tmp_path):
    write_report(content, tmp_path)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    stored = json.loads(text, parse_constant=pytest.fail)
    assert stored["curves"][1]["val_loss"] is None
    assert stored["artifacts"][1]["max_difference"] is None
    assert stored["confusion"] == content["confusion"]
    assert "[9, 1, 0, 0]" in text
    assert math.isinf(content["artifacts"][1]["max_difference"]), "the caller's content was changed"


def test_page_has_no_external_resources(written):
    page, folder = written
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "img", "image", "base"})
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|@font-face|https?://", text)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*([^)]*)\)", text))


def test_plots_use_the_colors_of_the_page(written):
    page, folder = written
    assert len(page.ids) == len(set(page.ids))
    text = (folder / "report.html").read_text(encoding="utf-8")
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(plots) == 6
    assert all('role="img"' in plot and re.search('aria-label="[^"]+"', plot) for plot in plots)
    assert not re.search("#[0-9a-f]{6}\\b", "".join(re.findall('style="[^"]*"', "".join(plots))))


def test_hostile_text_stays_text(content, written, tmp_path):
    expected = written[0].tags
    content.update(title=HOSTILE, run=HOSTILE, created=HOSTILE, labels=[HOSTILE] * 4)
    content["summary"].update(model=HOSTILE, dataset=HOSTILE, hardware=HOSTILE)
    content["recipe"] = {HOSTILE: {HOSTILE: HOSTILE}}
    content["artifacts"] = [artifact(HOSTILE, compression=HOSTILE, path=HOSTILE)]
    page = render(content, tmp_path)
    assert page.tags <= expected
    assert page.text.count("alert('x')") > 10


def measured(latency):
    by_threads = {"1": 3 * latency, "2": latency}
    return {
        "latency": {n: {"p50": ms, "p95": 1.2 * ms, "rounds": [ms] * 9} for n, ms in by_threads.items()},
        "batch": 1,
        "cold": {"import": 150.0, "load": 20.0, "first": 1.0, "total": 171.0},
        "memory": {"peak": 72_500_000, "over_import": 10_700_000},
        "throughput": {"per_second": 25133.8, "batch": 32, "callers": 1},
    }


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


EMPTY = {"artifacts": [], "curves": [], "confusion": [], "recipe": {}}


@pytest.mark.parametrize("bare", [{}, EMPTY, {"summary": {"test_accuracy": None}, **EMPTY}])
def test_without_content_it_shows_commands(bare, tmp_path):
    page = render(bare, tmp_path)
    for command in ("zoo evaluate RUN", "zoo train RECIPE", "zoo export RUN --format tflite_int8"):
        assert command in page.text
    assert "svg" not in page.tags


def test_commands_name_the_run(content, tmp_path):
    content.update(curves=None, artifacts=None)
    page = render(content, tmp_path)
    assert "zoo train digits_resnet" in page.text
    assert f"zoo export {content['run']} --format" in page.text


def gaps(value):
    """Yield copies of nested dicts and lists, each with one value missing or None."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict):
            yield {name: item for name, item in value.items() if name != key}
            yield {**value, key: None}
        for inner in gaps(item) if isinstance(item, (dict, list)) else ():
            changed = copy.copy(value)
            changed[key] = inner
            yield changed


@pytest.mark.slow
@pytest.mark.parametrize("part", ["summary", "recipe", "curves", "artifacts"])
def test_any_value_may_be_absent(content, part, tmp_path):
    # One row of one part only: drawing takes most of the time.
    rows = content[part][:1] if isinstance(content[part], list) else content[part]
    for changed in gaps({part: rows}):
        page = render({"title": "digits_resnet", **changed}, tmp_path)
        assert "None" not in page.text, changed


@pytest.mark.parametrize(("classes", "drawn"), [(2, True), (13, True), (40, True), (300, False)])
def test_many_classes(content, classes, drawn, tmp_path):
    labels = [f"class number {index}" for index in range(classes)]
    content.update(confusion=confusion(classes), labels=labels, curves=[], artifacts=[])
    page = render(content, tmp_path)
    assert ("svg" in page.tags) is drawn
    assert "class number 1" in page.text
    assert "Most confused pairs" in page.text


def test_two_writes_are_equal(content, written, tmp_path):
    write_report(content, tmp_path)
    for name in ("report.html", "report.json"):
        assert (tmp_path / name).read_bytes() == (written[1] / name).read_bytes()


def test_a_failed_write_preserves_the_old_report(content, tmp_path):
    write_report(content, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    content["title"] = "another"
    content["summary"]["versions"]["keras"] = object()
    with pytest.raises(TypeError):
        write_report(content, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_missing_folder(content, tmp_path):
    with pytest.raises(RunError, match="Received: folder="):
        write_report(content, tmp_path / "missing")


def test_wilson_interval():
    # 8 of 10: (0.8 + 0.19207 ± 1.96 * sqrt(0.016 + 0.0096036)) / 1.38415.
    assert wilson_interval(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(1.0, 5)[1] == 1.0
    assert wilson_interval(0.0, 5)[0] == 0.0


def test_confused_pairs_are_ordered():
    pairs = confused_pairs([[5, 1, 0], [2, 6, 2], [0, 3, 1]], ["a", "b", "c"], limit=3)
    assert [(pair["truth"], pair["prediction"], pair["count"]) for pair in pairs] == [
        ("c", "b", 3),
        ("b", "a", 2),
        ("b", "c", 2),
    ]
    assert pairs[0]["fraction"] == 0.75


@pytest.mark.parametrize(("value", "text"), [(1, "100.0%"), (0.99999, ">99.9%"), (0.5, "50.0%"), (None, "–")])
def test_only_one_is_100_percent(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (999_900, "1 MB"), (312_344, "312 kB")])
def test_sizes(count, text):
    assert size(count) == text


def test_dominated_artifacts():
    small, good, worse = (Point(*values) for values in (("a", 1, 0.90), ("b", 2, 0.95), ("c", 3, 0.95)))
    broken = Point("d", 1, 0.99, passed=False)
    points = [small, good, worse, broken, small]
    assert [is_dominated(point, points) for point in points[:3]] == [False, False, True]


def test_table_for_the_terminal(content):
    console = Console(file=io.StringIO(), width=120)
    rows = [*content["artifacts"], artifact("[bold]tflite", compression="pruned"), {"format": "bare"}]
    console.print(artifact_table(rows, title="[run]"))
    text = console.file.getvalue()
    for words in (
        "[run]",
        "tflite_int8",
        "312 kB",
        "0.21 ms",
        "97.5%",
        "✓ passed",
        "✗ failed",
        "not checked",
    ):
        assert words in text
    assert "[bold]tflite-pruned" in text
