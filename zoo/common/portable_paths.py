"""Paths in files that leave the machine: without the name of a user where possible, and found again."""

from __future__ import annotations

from pathlib import Path


def portable(path: Path | str) -> str:
    """Return a path relative to the working directory if it lies below, below "~" in the home folder, else as it is."""
    place = Path(path).expanduser().absolute()
    for folder, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        # Everything lies below the root.
        if folder != Path(folder.anchor) and place.is_relative_to(folder):
            return f"{prefix}{place.relative_to(folder).as_posix()}"
    return str(place)


def locate(path: str, folder: Path) -> Path:
    """Return the absolute path that `portable` stored in a file in a folder.

    A relative path is looked for below the folder, the folders that hold it, nearest first, and the working directory:
    a project can be moved as a whole, and used from any directory.
    """
    place = Path(path).expanduser()
    if place.is_absolute():
        return place
    places = [parent / place for parent in (folder.absolute(), *folder.absolute().parents)]
    return next((found for found in places if found.exists()), place.absolute())
