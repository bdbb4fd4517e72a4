"""Artifacts of a repository of the hub as folders on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from export.core.manifest import NAME
from zoo.common.errors import BadOption, DataError, RunError, did_you_mean
from zoo.common.files import whole_folder
from zoo.common.lazy import hub
from zoo.reading.files import Refusal
from zoo.reading.json_files import read_json
from zoo.weights.hub import CARD, fetch, fetch_optional, home, origin_of
from zoo.weights.references import HubAddress, is_address, parse_address


class Listing(TypedDict):
    """What is read of a manifest: its files."""

    files: dict[str, Any]


ARTIFACTS = "exports"  # their folder in a repository


def local_artifact(path: str | os.PathLike[str]) -> Path:
    """Return the path of an artifact; one of an address on the hub is downloaded if needed.

    Raises:
        BadOption: the address is invalid, or the repository has several artifacts.
        RunError: the repository has no such artifact.
        DataError: it cannot be downloaded.
    """
    if not isinstance(path, str) or not is_address(path):
        return Path(path)
    address = parse_address(path)
    name = _choose(address, path)
    manifest = fetch(address.source, file=f"{ARTIFACTS}/{name}/{NAME}")
    commit = origin_of(manifest).get("revision")
    if commit is None:
        return manifest.parent  # downloaded by hand
    source = f"{address.repository}@{commit}"  # a branch may move meanwhile
    files = [(file, fetch(source, file=f"{ARTIFACTS}/{name}/{file}")) for file in _listed(manifest)]
    return _linked(home() / "artifacts" / address.repository / commit / name, manifest, files)


def _choose(address: HubAddress, text: str) -> str:
    """Return the name of the artifact that an address means."""
    names = _names(address)
    wanted = address.path.removeprefix(f"{ARTIFACTS}/").rstrip("/")
    if wanted and wanted not in names:
        raise RunError(f"Expected an artifact of the repository. Received: {text!r}. {did_you_mean(wanted, names)}")
    if not names:
        raise RunError(
            f"Expected a repository with artifacts. Received: {text!r}, which has none. Load its weights with: "
            "zoo.get(address)"
        )
    if not wanted and len(names) > 1:
        raise BadOption(
            f"Expected the address of one artifact. Received: {text!r} with {', '.join(names)}. "
            f"Add its name: hf://{address.source}/{names[0]}"
        )
    return wanted or names[0]


def _names(address: HubAddress) -> list[str]:
    """Return the names of the artifacts in a repository; without a connection, of those in the cache."""
    card = fetch_optional(address.source, CARD)
    files = []
    try:
        found = hub.HfApi().model_info(address.repository, revision=address.revision or None)
        files = [PurePosixPath(each.rfilename) for each in found.siblings or ()]
    except Exception as error:  # The client passes on any exception of its transport.
        place = card.parent if card and origin_of(card) else home() / address.source
        files = [PurePosixPath(p.relative_to(place).as_posix()) for p in place.glob(f"{ARTIFACTS}/*/{NAME}")]
        if not files:
            reason = str(error).strip().partition("\n")[0][:200]
            raise DataError(
                f"Artifacts cannot be listed: {reason} Received: hf://{address.source}. Check the name and the "
                f"connection, or put the files below {home() / address.source}"
            ) from error
    return sorted(p.parts[1] for p in files if len(p.parts) == 3 and (p.parts[0], p.parts[2]) == (ARTIFACTS, NAME))


def _listed(manifest: Path) -> list[str]:
    """Return the files that a manifest lists, by their path in its folder; all of them are below it."""
    names = list(read_json(manifest, Listing, Refusal("Expected a manifest with its files", DataError))["files"])
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise DataError(f"The files of a manifest must be in its folder. Received: {manifest} with {name!r}")
    return names


def _linked(place: Path, manifest: Path, files: list[tuple[str, Path]]) -> Path:
    """Return a folder with an artifact's files: the cache has links, which loaders refuse as they lead elsewhere."""
    with whole_folder(place) as folder:
        for name, path in [*files, (NAME, manifest)]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _link(path.resolve(), folder / name)
    return place


def _link(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where the file system has none."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
