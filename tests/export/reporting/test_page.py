"""The files of a report, and their robustness against any content."""

from __future__ import annotations

import copy
import json
import math
import re

import pytest
from report_content import HOSTILE, artifact, confusion, content_of_a_run, render

from export.reporting.report import write_report
from zoo.common.errors import RunError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of a run, and the folder with its files."""
    folder = tmp_path_factory.mktemp("written")
    return render(content_of_a_run(), folder), folder


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
