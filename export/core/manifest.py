"""The manifest: what is in an artifact, what it was measured to be, and digests that show any change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from zoo.common.errors import ParityError, RunError
from zoo.common.files import read_json, to_json, write_bytes

VERSION = 2
NAME, SAMPLES, MASKS = "manifest.json", "samples.npz", "masks.npz"
# What every manifest states, beside its version, digest and files.
STATED = {
    "format": str, "options": dict, "artifact": str, "metadata": dict, "inspection": dict, "samples": str,
    "source": dict, "environment": dict, "parity": dict, "inputs": list, "outputs": list,
}  # fmt: skip
BESIDE = (SAMPLES, MASKS)  # what an artifact is compared with; it does not ship


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    """Do what hashlib.file_digest does since Python 3.11."""
    state = hashlib.sha256()
    while block := file.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and digest of every file of an artifact but the manifest, by path within the folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": digest_file(p)} for p in files}


def write_manifest(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of a complete artifact folder, with the digests of its files and its own.

    Args:
        folder: holds the artifact and its samples.
        content: JSON-safe facts.

    Returns:
        The manifest as it stands in the file.
    """
    files = list_files(folder)
    size = sum(f["bytes"] for name, f in files.items() if name not in BESIDE)
    manifest = {"version": VERSION, **content, "bytes": size, "files": files}
    manifest["digest"] = _own_digest(manifest)
    write_bytes(folder / NAME, to_json(manifest).encode())
    return manifest


def _own_digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(to_json({k: v for k, v in manifest.items() if k != "digest"}).encode()).hexdigest()


def find_folder(path: Path) -> Path:
    """Return the artifact's folder, given it or the artifact in it.

    Raises:
        RunError: no manifest there.
    """
    for folder in (path, *list(path.absolute().parents)[:2]):
        if (folder / NAME).is_file():
            return folder
    raise RunError(
        f"Expected an artifact with its {NAME}. Received: {str(path)!r}. Artifacts lie in RUN/exports/FORMAT; "
        "make one with: zoo export RUN --format FORMAT"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder, if it and every file are as they were written.

    Raises:
        RunError: the manifest cannot be read, or is of another version.
        ParityError: a file or the manifest was changed, is missing, or was added.
    """
    manifest = read_json(folder / NAME)
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        version = manifest.get("version") if isinstance(manifest, dict) else None
        raise RunError(
            f"This zoo reads manifests of version {VERSION}. Received: {folder / NAME} of version {version}."
        )
    if manifest.get("digest") != _own_digest(manifest) or to_json(manifest).encode() != (folder / NAME).read_bytes():
        raise ParityError(f"{folder / NAME} is not as it was written. Export again.")
    _check_stated(manifest, folder)
    expected, found = manifest["files"], list_files(folder)
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} was added" for name in found if name not in expected]
    wrong += [f"{name} was changed" for name in expected if name in found and found[name] != expected[name]]
    if wrong:
        raise ParityError(f"{folder} is not as it was written: {'; '.join(wrong[:5])}. Export again.")
    return manifest


def _check_stated(manifest: dict[str, Any], folder: Path) -> None:
    """Raise RunError for a manifest that lacks what every one states, or that leads out of its folder."""
    lacking = [key for key, kind in STATED.items() if not isinstance(manifest.get(key), kind)]
    lacking += [] if isinstance(manifest.get("files"), dict) else ["files"]
    if lacking or "compression" not in manifest:
        raise RunError(
            f"A manifest must state {', '.join((*STATED, 'compression', 'files'))}. Received: {folder / NAME} without "
            f"{(lacking or ['compression'])[0]}. Export again."
        )
    if not (folder / manifest["artifact"]).resolve().is_relative_to(folder.resolve()):
        raise RunError(
            "An artifact must lie beside its manifest. "
            f"Received: {folder / NAME} with artifact={manifest['artifact']!r}"
        )
