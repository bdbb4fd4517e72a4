"""The images of a calibration folder: which files are found, and how many are looked at."""

from __future__ import annotations

import pytest

from export.source import request
from export.source.request import find_images
from zoo.common.errors import DataError


def test_hidden_files_and_links(tmp_path):
    """Images of sub-folders and of a linked folder once each, in one order; no hidden file, and no other file."""
    folder, other = tmp_path / "images", tmp_path / "other"
    for path in ("b.png", "sub/a.JPG", ".hidden/c.png", "__MACOSX/d.png", "._e.png", "notes.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    other.mkdir()
    (other / "f.webp").touch()
    (folder / "linked").symlink_to(other)
    (folder / "sub" / "up").symlink_to(folder)
    found = [str(path.relative_to(folder)) for path in find_images(folder)]
    assert found == ["b.png", "linked/f.webp", "sub/a.JPG"]


def test_a_whole_disk_is_refused(tmp_path, monkeypatch):
    """Before all of its files are listed, in one line."""
    monkeypatch.setattr(request, "MOST_FILES", 3)
    for name in "abc":
        (tmp_path / f"{name}.png").touch()
    assert len(find_images(tmp_path)) == 3
    (tmp_path / "d.txt").touch()
    with pytest.raises(DataError, match=r"folder of at most 3 files\. Received: calibration=.* with more"):
        find_images(tmp_path)
