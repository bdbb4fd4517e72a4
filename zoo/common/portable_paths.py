"""Paths in files that leave the machine: without the name of a user where possible, and found again."""

from __future__ import annotations

import os
from pathlib import Path


def shown_path(path: Path | str) -> str:
    """Return a path for readers: relative to the working directory if it lies below, below "~" in the home folder."""
    place = Path(path).expanduser().absolute()
    for folder, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if _holds(folder, place):
            return f"{prefix}{place.relative_to(folder).as_posix()}"
    return str(place)


def portable(path: Path | str, folder: Path) -> str:
    """Return a path for a file in a folder: relative to that if both lie below the working directory.

    Else it is below "~" in the home folder, or as it is.
    """
    place, project = Path(path).expanduser().absolute(), Path.cwd()
    if _holds(project, place) and _holds(project, folder.absolute()):
        return Path(os.path.relpath(place, folder)).as_posix()
    return f"~/{place.relative_to(Path.home()).as_posix()}" if _holds(Path.home(), place) else str(place)


def _holds(folder: Path, place: Path) -> bool:
    """Return whether a path lies below a folder, which is not the root: that holds everything."""
    return folder != Path(folder.anchor) and place.is_relative_to(folder)


def locate(path: str, folder: Path) -> Path:
    """Return the absolute path that `portable` stored in a file in a folder.

    If it is not there, because the folder was moved, it is looked for below the folders that hold it, nearest first,
    and below the working directory.
    """
    place = Path(path).expanduser()
    if place.is_absolute():
        return place
    direct = Path(os.path.normpath(folder.absolute() / place))
    tail = Path(*[part for part in place.parts if part != ".."])
    if direct.exists() or tail == Path():
        return direct
    places = [parent / tail for parent in (*folder.absolute().parents, Path.cwd())]
    return next((found for found in places if found.exists()), direct)
