"""A folder of images, one sub-folder a class: PATH/cat/1.jpg, or PATH/train/cat/1.jpg with validation/ and test/.

Without such splits, each class is divided by a fixed shuffle: 80% train, 10% validate, 10% test.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from training._configs import DataConfig
from training._data import Dataset, Split, register
from zoo._errors import DataError
from zoo._lazy import np, quiet_libraries, tf

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
SHARES = (0.8, 0.9)

Files = dict[str, list[Path]]


@register("folder")
def folder(config: DataConfig) -> Dataset:
    """Return the images below `config.path`.

    Raises:
        DataError: no folder, no classes, a class with no images, or images that cannot be decoded.
    """
    root = _root(config.path)
    splits = _split_folders(root) or _divide(_classes(root))
    labels = tuple(splits["train"])
    for name, files in splits.items():
        _same_classes(root, name, labels, files)
    bad = set(find_bad(chain.from_iterable(chain.from_iterable(f.values() for f in splits.values()))))
    if bad and not config.skip_bad:
        raise DataError(_bad_message(root, bad, sum(len(v) for f in splits.values() for v in f.values())))
    return Dataset("folder", labels, (0, 0, 0), {n: _split(root, f, bad) for n, f in splits.items()})


def _root(path: str) -> Path:
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise DataError(
            f"Expected a folder with one sub-folder of images a class. Received: data.path={path!r}. "
            "Give it by: --set data.path=FOLDER"
        )
    return root


def _split_folders(root: Path) -> dict[str, Files]:
    """Return the files of train/, validation/ and test/ where the folder is divided so."""
    found = {ours: next((root / n for n in names if (root / n).is_dir()), None) for ours, names in SPLITS.items()}
    if found["train"] is None:
        return {}
    splits = {ours: _classes(place) for ours, place in found.items() if place}
    if "validation" not in splits:
        divided = _divide(splits["train"], (0.9, 1.0))
        splits |= {"train": divided["train"], "validation": divided["validation"]}
    return splits


def _classes(root: Path) -> Files:
    """Return the images of each class, in the order of their names."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {f.name: sorted(p for p in f.rglob("*") if p.suffix.lower() in SUFFIXES) for f in folders}
    if len(files) < 2:
        raise DataError(
            f"Expected at least two sub-folders, one a class. Received: {root} with {len(files)}. "
            f"Sort the images into {root}/CLASS/"
        )
    empty = [name for name, images in files.items() if not images]
    if empty:
        raise DataError(
            f"Expected images ({', '.join(SUFFIXES)}) in every class. Received: {root} with none in "
            f"{', '.join(map(repr, empty[:5]))}. Add images or remove the folder."
        )
    return files


def _divide(files: Files, shares: tuple[float, float] = SHARES) -> dict[str, Files]:
    """Divide each class by a shuffle that depends on nothing but its files; every split gets what is left over."""
    splits: dict[str, Files] = {"train": {}, "validation": {}, "test": {}}
    for name, images in files.items():
        order = np.random.default_rng(0).permutation(len(images))
        ends = [0, *(max(1, round(share * len(images))) for share in shares), len(images)]
        for split, low, high in zip(splits, ends, ends[1:], strict=False):
            splits[split][name] = sorted(images[i] for i in order[low:high])
    return {name: part for name, part in splits.items() if any(part.values())}


def _same_classes(root: Path, split: str, labels: tuple[str, ...], files: Files) -> None:
    if tuple(files) != labels:
        odd = sorted(set(files) ^ set(labels))
        raise DataError(f"Expected the same classes in every split of {root}. Received: {split} differs in {odd[:5]}")


def _split(root: Path, files: Files, bad: set[Path]) -> Split:
    """Return the examples of a split, the classes mixed, since large data is shuffled by parts only."""
    pairs = [(str(p), i) for i, images in enumerate(files.values()) for p in images if p not in bad]
    if not pairs:
        raise DataError(f"Expected images that can be decoded. Received: {root} with none left in a split.")
    pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    paths, labels = zip(*pairs, strict=True)
    examples = tf.data.Dataset.from_tensor_slices((list(paths), np.array(labels, "int64")))
    return Split(examples.map(lambda p, y: (tf.io.read_file(p), y), num_parallel_calls=os.cpu_count()), len(pairs))


def find_bad(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that TensorFlow cannot decode, as training would do it."""
    paths = list(paths)
    # The JPEG library complains on standard error itself; the names of the files say more.
    with ThreadPoolExecutor(os.cpu_count()) as pool, quiet_libraries():
        for path, good in zip(paths, pool.map(_decodes, paths), strict=True):
            if not good:
                yield path


def _decodes(path: Path) -> bool:
    # Truncated, foreign and empty files raise InvalidArgumentError; one that cannot be read another OpError.
    try:
        tf.io.decode_image(tf.io.read_file(str(path)), expand_animations=False)
    except tf.errors.OpError:
        return False
    return True


def _bad_message(root: Path, bad: set[Path], total: int) -> str:
    shown: list[Any] = [str(p.relative_to(root)) for p in sorted(bad)[:5]]
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    return (
        f"Expected images that can be decoded. Received: {len(bad)} of {total} in {root} that cannot: "
        f"{', '.join(shown)}{more}. Mend or remove them, or leave them out by: --set data.skip_bad=true"
    )
