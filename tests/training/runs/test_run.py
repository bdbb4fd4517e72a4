"""The run directory: a new one, damaged or unfinished ones, the rows of its metrics, and its lock."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from run_checks import RECIPE, names, refused

import training
from training import Run
from training.recipe.recipe import resolve


def test_recipe_in_the_run_has_no_folder_of_the_user(tmp_path, monkeypatch):
    """Paths are relative in the file, absolute in the recipe, from any directory and after the project has moved."""
    (tmp_path / "project/photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    recipe = resolve(RECIPE, {"data.path": "photos"}.items())
    assert recipe.data.path == str(tmp_path / "project/photos")
    run = Run.create(recipe, Path("runs/one"))
    assert str(tmp_path) not in (run.path / "recipe.json").read_text()
    monkeypatch.chdir("/")
    assert Run.open(run.path).recipe == recipe
    (tmp_path / "project").rename(tmp_path / "moved")
    assert Run.open(tmp_path / "moved/runs/one").recipe.data.path == str(tmp_path / "moved/photos")


def test_new_run_goes_below_runs(tmp_path, monkeypatch):
    """Without a path, each run gets a new folder runs/<recipe>/<time>-<4 hex>."""
    monkeypatch.chdir(tmp_path)
    one, two = Run.create(RECIPE), Run.create(RECIPE)
    assert one.path.parent == two.path.parent
    assert one.path.resolve().parent == tmp_path / "runs/test"
    assert one.path.name[15:16] == "-"
    assert int(one.path.name[16:], 16) < 1 << 16
    assert one.path != two.path


def test_new_run_in_an_empty_folder(tmp_path):
    """An empty folder is accepted."""
    assert Run.open(Run.create(RECIPE, tmp_path).path).recipe == RECIPE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["env.json", "recipe.json"]


def test_new_run_in_the_current_folder(tmp_path, monkeypatch):
    """A dot is the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Run.create(RECIPE, ".")
    assert (tmp_path / "here/recipe.json").is_file()


def test_folder_that_holds_something_is_refused(tmp_path):
    """A file, or a folder with content, is refused before anything is written or computed."""
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with refused(r"empty or missing folder for a new run.*zoo train --resume"):
            Run.create(RECIPE, place)
        with refused(r"empty or missing folder for a new run"):
            training.train("folder_resnet18", {"data.path": "nowhere"}, run=place)
    assert names(tmp_path) == ["notes.txt"]


def test_missing_run(tmp_path):
    """A path without a run is refused, with how to make one."""
    for place in (tmp_path, tmp_path / "nowhere"):
        with refused(r"Expected a run directory.*zoo train RECIPE"):
            Run.open(place)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_other_version_is_refused(run, version):
    """A run of another format version is refused."""
    content = json.loads((run.path / "recipe.json").read_text()) | {"version": version}
    (run.path / "recipe.json").write_text(json.dumps(content))
    with refused(f"version 1. Received: .* of version {version}"):
        Run.open(run.path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"version": 1, "recipe": {"na',
        b"\xff\xfe\x00",
        b'{"version": 1}',
        b'{"version": 1, "recipe": {"name": "x", "epochz": 3}}',
        b'{"version": 1, "recipe": {"name": "x", "epochs": "three"}}',
        b"[1]",
        b"null",
    ],
)
def test_damaged_recipe_is_refused(run, content):
    """An unreadable recipe.json gives one line that names the run."""
    (run.path / "recipe.json").write_bytes(content)
    with refused(str(run.path)):
        Run.open(run.path)


def test_unfinished_run_has_no_result(run):
    """Without done.json there is no result, and the message explains how to get one."""
    assert not run.finished
    with refused(rf"zoo train --resume {run.path}"):
        run.result()
    with refused("no done.json"):
        training.evaluate(run)


def test_metrics_survive_a_truncated_line(run):
    """A truncated last line is dropped, and the next row starts a new line."""
    for epoch in (1, 2):
        run.add_metrics({"epoch": epoch, "loss": 1.0 / epoch})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')
    assert [row["epoch"] for row in run.metrics()] == [1, 2]
    run.add_metrics({"epoch": 3, "loss": 0.1})
    assert [row["epoch"] for row in run.metrics()] == [1, 2, 3]
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 3


def test_rows_from_before_a_resume_are_replaced(run):
    """The row of an epoch replaces those of this epoch and later."""
    for epoch in (1, 2, 3):
        run.add_metrics({"epoch": epoch, "loss": 1.0})
    run.add_metrics({"epoch": 2, "loss": 2.0})
    assert [(row["epoch"], row["loss"]) for row in run.metrics()] == [(1, 1.0), (2, 2.0)]


def test_no_metrics_yet(run):
    """A new run has no rows."""
    assert run.metrics() == []


HOLD = """
import sys
import training
with training.Run.open(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_refused(run, python, zoo_command):
    """Only one process can train in a run; the lock ends with the process, even after kill -9."""
    process = python("-c", HOLD, run.path, stdin=subprocess.PIPE, warm=True)
    try:
        assert process.stdout.readline() == "held\n"
        with refused("no other command that trains or exports"), run.lock():
            pass
        before = names(run.path)
        code, out, err = zoo_command("train", "--resume", run.path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "no other command that trains or exports" in err
        assert names(run.path) == before
    finally:
        process.kill()
        process.communicate()
    with run.lock():
        pass
