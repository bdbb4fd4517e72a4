"""Paths in files are without the user's folders where possible, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.common.portable_paths import locate, portable


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working directory, with a folder of photos, beside a home folder."""
    for folder in ("project/photos", "project/runs/one", "home/data", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_paths_are_relative_where_possible(project):
    """To the working directory, to the home folder, else not at all."""
    assert portable("photos") == portable(project / "photos") == "photos"
    assert portable(project.parent / "home/data") == portable("~/data") == "~/data"
    assert portable(project.parent / "elsewhere") == str(project.parent / "elsewhere")


def test_nothing_is_relative_to_the_root(monkeypatch):
    """There, it would hide nothing."""
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/")
    assert portable("/data/photos") == "/data/photos"


def test_they_are_found_from_anywhere(project, monkeypatch):
    """From another directory, and after the project has moved; a folder of the same name there is not taken."""
    (project.parent / "elsewhere/photos").mkdir()
    monkeypatch.chdir(project.parent / "elsewhere")
    assert locate("photos", project / "runs/one") == project / "photos"
    moved = project.rename(project.parent / "moved")
    assert locate("photos", moved / "runs/one") == moved / "photos"
    assert locate("~/data", moved / "runs/one") == project.parent / "home/data"
    assert locate("/data", moved / "runs/one") == Path("/data")
    # The control: what is nowhere is named where the user is.
    assert locate("others", moved / "runs/one") == Path.cwd() / "others"
