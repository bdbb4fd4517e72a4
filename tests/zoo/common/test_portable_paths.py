"""Paths in files are without the user's folders where possible, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.common.portable_paths import locate, portable, shown_path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working directory, with a folder of photos and a run, beside a home folder."""
    for folder in ("project/photos", "project/runs/one", "home/data", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def run(project):
    """The folder of a run."""
    return project / "runs/one"


def test_paths_are_relative_where_possible(project, run):
    """To the run within the working directory, to the home folder, else not at all."""
    assert portable("photos", run) == portable(project / "photos", Path("runs/one")) == "../../photos"
    assert portable(project, run) == "../.."
    assert portable(project.parent / "home/data", run) == portable("~/data", run) == "~/data"
    assert portable(project.parent / "elsewhere", run) == str(project.parent / "elsewhere")
    # The control: a run elsewhere would be moved without the data.
    assert portable("photos", project.parent / "elsewhere") == str(project / "photos")


def test_readers_see_them_from_the_working_directory(project):
    """Or from the home folder."""
    assert (shown_path("photos"), shown_path(project / "photos")) == ("photos", "photos")
    assert shown_path(project.parent / "home/data") == "~/data"
    assert shown_path(project.parent / "elsewhere") == str(project.parent / "elsewhere")


def test_nothing_is_relative_to_the_root(monkeypatch):
    """There, it would hide nothing."""
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/")
    assert portable("/data/photos", Path("/runs/one")) == shown_path("/data/photos") == "/data/photos"


def test_they_are_found_from_anywhere(project, run, monkeypatch):
    """From another directory, after the project has moved, and after the run has moved within it."""
    stored = [portable(path, run) for path in ("photos", ".")]
    (project.parent / "elsewhere/photos").mkdir()
    monkeypatch.chdir(project.parent / "elsewhere")
    assert [locate(path, run) for path in stored] == [project / "photos", project]
    moved = project.rename(project.parent / "moved")
    assert [locate(path, moved / "runs/one") for path in stored] == [moved / "photos", moved]
    (moved / "kept/long").mkdir(parents=True)
    deeper = (moved / "runs/one").rename(moved / "kept/long/one")
    assert locate(stored[0], deeper) == moved / "photos"
    assert locate("~/data", deeper) == project.parent / "home/data"
    assert locate("/data", deeper) == Path("/data")
    # The control: what is nowhere is named where it was.
    assert locate("../../others", moved / "runs/two") == moved / "others"
