"""The manifest of an artifact: its metadata, its verification, and digests that reveal any change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from zoo.common.errors import ParityError, RunError
from zoo.common.files import read_json, restore_replaced, to_json, write_bytes

VERSION = 3
NAME, SAMPLES, MASKS = "manifest.json", "samples.npz", "masks.npz"
FACTS = "facts.json"  # in the scratch folder of an export: `export.source.source.SourceModel.facts`
# Keys of every manifest, next to "version", "digest" and "files".
REQUIRED_KEYS = {
    "format": str, "options": dict, "artifact": str, "metadata": dict, "inspection": dict, "samples": str,
    "source": dict, "environment": dict, "parity": dict, "inputs": list, "outputs": list,
}  # fmt: skip
VERIFICATION_FILES = (SAMPLES, MASKS)  # for `export.verify` only; not part of the artifact's size


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
    """Return size and digest of every file of an artifact except the manifest, by path within the folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": digest_file(p)} for p in files}


def write_manifest(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of a complete artifact folder, with the digests of its files and its own.

    Args:
        folder: holds the artifact and its samples.
        content: JSON-safe values.

    Returns:
        The manifest as it is in the file.
    """
    files = list_files(folder)
    size = sum(f["bytes"] for name, f in files.items() if name not in VERIFICATION_FILES)
    manifest = {"version": VERSION, **content, "bytes": size, "files": files}
    manifest["digest"] = _own_digest(manifest)
    write_bytes(folder / NAME, to_json(manifest).encode())
    return manifest


def _own_digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(to_json({k: v for k, v in manifest.items() if k != "digest"}).encode()).hexdigest()


def find_folder(path: Path) -> Path:
    """Return an artifact's folder, given the folder or the artifact in it.

    An artifact that a killed export left renamed is restored first.

    Raises:
        RunError: no manifest there.
    """
    for folder in (path, *list(path.absolute().parents)[:2]):
        restore_replaced(folder)
        if (folder / NAME).is_file():
            return folder
    raise RunError(
        f"Expected an artifact with its {NAME}. Received: {str(path)!r}. Artifacts are in RUN/exports/FORMAT; "
        "make one with: zoo export RUN --format FORMAT"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder after checking it and every file against their digests.

    Raises:
        RunError: the manifest cannot be read, or has another version.
        ParityError: a file or the manifest was changed, is missing, or was added.
    """
    manifest = read_json(folder / NAME)
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        version = manifest.get("version") if isinstance(manifest, dict) else None
        raise RunError(
            f"This zoo reads manifests of version {VERSION}. Received: {folder / NAME} of version {version}. "
            "Export again."
        )
    if manifest.get("digest") != _own_digest(manifest) or to_json(manifest).encode() != (folder / NAME).read_bytes():
        raise ParityError(f"{folder / NAME} was changed after export. Export again.")
    _check_keys(manifest, folder)
    expected, found = manifest["files"], list_files(folder)
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} was added" for name in found if name not in expected]
    wrong += [f"{name} was changed" for name in expected if name in found and found[name] != expected[name]]
    if wrong:
        raise ParityError(f"{folder} was changed after export: {'; '.join(wrong[:5])}. Export again.")
    return manifest


def _check_keys(manifest: dict[str, Any], folder: Path) -> None:
    """Raise RunError for a manifest without a required key, or with an artifact outside its folder."""
    missing = [key for key, kind in REQUIRED_KEYS.items() if not isinstance(manifest.get(key), kind)]
    missing += [] if isinstance(manifest.get("files"), dict) else ["files"]
    if missing or "compression" not in manifest:
        raise RunError(
            f"A manifest must have the keys {', '.join((*REQUIRED_KEYS, 'compression', 'files'))}. "
            f"Received: {folder / NAME} without {(missing or ['compression'])[0]}. Export again."
        )
    if not (folder / manifest["artifact"]).resolve().is_relative_to(folder.resolve()):
        raise RunError(
            "An artifact must be in the folder of its manifest. "
            f"Received: {folder / NAME} with artifact={manifest['artifact']!r}"
        )
