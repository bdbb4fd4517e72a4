"""JPEG files that are complete according to their markers, checked against a decoder."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from training.data.readers.images.checks import ImageChecks
from training.data.readers.images.jpeg import is_whole_jpeg
from zoo.common.lazy import quiet_libraries

KINDS = {
    "plain": {"quality": 90},
    "no subsampling": {"quality": 60, "subsampling": 0},
    "own codes": {"quality": 80, "optimize": True},
    "restarts": {"quality": 80, "restart_marker_blocks": 4},
}


def jpeg(mode="RGB", **options):
    """Return the bytes of a small photograph."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3)).astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((96, 80), Image.Resampling.BICUBIC).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def decodes(content):
    """Return whether TensorFlow decodes the content."""
    import tensorflow as tf

    try:
        tf.io.decode_image(content, expand_animations=False)
    except tf.errors.OpError:
        return False
    return True


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_complete_files_are_recognized_without_decoding(options, mode):
    """Baseline files of every kind are complete, with any comments and tables."""
    assert is_whole_jpeg(jpeg(mode, **options))
    assert is_whole_jpeg(jpeg(mode, comment=b"a note \xff\xd9", exif=b"Exif\0\0" + bytes(40), **options))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xd9", jpeg(progressive=True), jpeg("CMYK"), jpeg() + b"\0"])
def test_uncertain_files_are_left_to_the_decoder(content):
    """Empty, progressive and CMYK files, and files with data after their end, are checked by decoding."""
    assert not is_whole_jpeg(content)


def cut(content, random):
    """Cut off the end."""
    return content[: random.integers(0, len(content) - 1)]


def cut_and_closed(content, random):
    """Cut off the end, but leave the end marker."""
    return content[: random.integers(0, len(content) - 2)] + b"\xff\xd9"


def corrupted(low, high, count):
    """Return a function that damages so many bytes between two fractions of the file."""

    def corrupt(content, random):
        content = bytearray(content)
        for place in random.integers(int(low * len(content)), int(high * len(content)), count):
            content[place] = random.integers(256)
        return bytes(content)

    return corrupt


def zeroed(content, random):
    """Overwrite a part in the middle with zeros."""
    place = random.integers(2, len(content) - 200)
    return content[:place] + bytes(150) + content[place + 150 :]


DAMAGE = {
    "cut": cut, "cut and closed": cut_and_closed, "head": corrupted(0, 0.15, 1), "body": corrupted(0.2, 1, 20),
    "anywhere": corrupted(0, 1, 5), "zeroed": zeroed,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_nothing_that_cannot_be_decoded_passes(damage):
    """Of 200 damaged files, all that pass can be decoded; some others cannot."""
    random, files = np.random.default_rng(1), [jpeg(m, **o) for o in KINDS.values() for m in ("RGB", "L")]
    with quiet_libraries():
        damaged = [damage(files[i % len(files)], random) for i in range(200)]
        refused = {content for content in damaged if not decodes(content)}
    assert [content for content in refused if is_whole_jpeg(content)] == []
    assert len(refused) > 10


def test_checks_name_what_is_cut_off(tmp_path):
    """Among complete files of every kind, truncated ones are named, and a folder with the suffix of an image."""
    for i, options in enumerate((*KINDS.values(), {"progressive": True})):
        (tmp_path / f"good{i}.jpg").write_bytes(jpeg(**options))
        (tmp_path / f"cut{i}.jpg").write_bytes(jpeg(**options)[:-300])
    (tmp_path / "folder.jpg").mkdir()
    found = ImageChecks(0).bad(sorted(tmp_path.iterdir()))
    assert [path.name for path in found] == [*(f"cut{i}.jpg" for i in range(5)), "folder.jpg"]
