"""Images in two splits that look alike, such as copies of another size or quality, by a perceptual hash.

The hash is of the differences between neighbors in 9 x 8 gray pixels (dHash): 64 bits, of which a copy changes a few.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from training.common.image_files import UnreadableImage, pillow, pillow_ops
from training.data.readers.images.checks import read_encoded
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

# Columns and rows of the hashed image, the length to which a JPEG is decoded first, and the least contrast, in levels:
# empty images look alike.
SIZE, DRAFT, CONTRAST = (9, 8), 64, 12
# Hashes of a split that are compared at a time.
BLOCK = 1024

Pair = tuple[tuple[str, Path], tuple[str, Path]]


def near_pairs(splits: Mapping[str, Sequence[Path]], most: int, limit: int) -> list[Pair]:
    """Return the images of a split with one of an earlier split that looks alike, which comes first.

    Args:
        splits: the files of each split.
        most: bits of 64 that may differ.
        limit: width x height of the largest image that is read; 0 for no limit.
    """
    hashes = {name: _hashes(paths, limit) for name, paths in splits.items()}
    found: dict[Path, Pair] = {}
    for (one, first), (other, second) in itertools.combinations(hashes.items(), 2):
        for start in range(0, len(second[1]), BLOCK):
            block = second[1][start : start + BLOCK]
            if not len(first[1]):
                continue
            bits = np.bitwise_count(block[:, None] ^ first[1][None])
            for row in np.flatnonzero(bits.min(1) <= most):
                path = second[0][start + row]
                found.setdefault(path, ((one, first[0][int(bits[row].argmin())]), (other, path)))
    return list(found.values())


def _hashes(paths: Sequence[Path], limit: int) -> tuple[list[Path], _np.ndarray]:
    """Return the images that have a hash, and their hashes, uint64 (n,)."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(functools.partial(perceptual_hash, limit=limit), paths))
    kept = [i for i, each in enumerate(found) if each is not None]
    return [paths[i] for i in kept], np.array([found[i] for i in kept], "uint64")


def perceptual_hash(path: Path, limit: int = 0) -> int | None:
    """Return the hash of an image; None without contrast, or if it cannot be read."""
    try:
        with pillow.open(io.BytesIO(read_encoded(path, limit))) as image:
            image.draft("L", (DRAFT, DRAFT))
            upright = pillow_ops.exif_transpose(image).convert("L")
            gray = np.asarray(upright.resize(SIZE, pillow.Resampling.BOX), "int16")
    except (OSError, UnreadableImage, ValueError, SyntaxError, EOFError):
        return None
    if np.ptp(gray) < CONTRAST:
        return None
    return int.from_bytes(np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes(), "big")
