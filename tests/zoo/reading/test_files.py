"""Only regular files are read, at once; links that lead out of a folder, and special files in it, are refused."""

from __future__ import annotations

import os
import socket
import zipfile
import zlib

import pytest

from zoo.common.errors import BadOption, RunError
from zoo.reading.files import Refusal, check_inside, check_regular, open_lock, open_own, read_bytes, reading


@pytest.fixture
def special(tmp_path):
    """Paths that are no regular files, by kind; opening some of them would block for ever."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "linked").symlink_to(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(tmp_path / "socket"))
    listener.close()
    kinds = {"fifo": "FIFO", "folder": "folder", "zero": "device", "linked": "FIFO", "socket": "socket"}
    return {tmp_path / name: kind for name, kind in kinds.items()}


def test_special_files_are_refused_at_once(special):
    """By the check, and by what opens them without it, so that a file which is replaced meanwhile does not block."""
    for path, kind in special.items():
        with pytest.raises(BadOption, match=f"Received: {path}: it is a {kind}"):
            check_regular(path, Refusal(error=BadOption))
        with pytest.raises(OSError, match=r"it is a|No such device"):
            read_bytes(path, 10)


def test_regular_files_and_links_to_them_are_read(tmp_path):
    """The control; a missing file is refused, and one that is too large."""
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        check_regular(tmp_path / name)
        assert read_bytes(tmp_path / name, 4) == b"1234"
    with pytest.raises(OSError, match="it has 4 bytes, and at most 3"):
        read_bytes(tmp_path / "file", 3)
    with pytest.raises(RunError, match="No such file"):
        check_regular(tmp_path / "other")


@pytest.mark.parametrize(
    "failure",
    [
        zipfile.BadZipFile("bad"),
        zlib.error("bad"),
        MemoryError(),
        RecursionError("deep"),
        KeyError("name"),
        OSError(5, "bad"),
    ],
)
def test_whatever_a_parser_raises_becomes_one_line(tmp_path, failure):
    """The line has what was expected, the file, the reason and advice; errors of the zoo pass."""
    (tmp_path / "file").touch()
    with pytest.raises(BadOption) as caught, reading(tmp_path / "file", Refusal("Expected x", BadOption, "Do y.")):
        raise failure
    message = str(caught.value)
    assert message.startswith(f"Expected x. Received: {tmp_path / 'file'}: ")
    assert message.endswith(". Do y.")
    assert "\n" not in message
    with pytest.raises(RunError, match="own"), reading(tmp_path / "file"):
        raise RunError("own")


def test_long_reasons_are_shortened(tmp_path):
    """A parser that quotes a whole file does not fill the screen."""
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught, reading(tmp_path / "file"):
        raise ValueError("x\n" * 10_000)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_links_that_lead_out_and_special_files_are_refused(tmp_path):
    """At any depth, also links to what does not exist; links inside, and a link to the folder, are fine."""
    inside, outside = tmp_path / "run", tmp_path / "outside"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (inside / "deep" / "file").touch()
    (inside / "own").symlink_to("deep/file")
    (tmp_path / "link").symlink_to(inside)
    (inside / "loop").symlink_to("loop")  # Path.resolve() raises RuntimeError of it
    check_inside(inside)
    check_inside(tmp_path / "link")
    for target in (outside, "../../outside", tmp_path / "missing", "/dev/zero"):
        (inside / "deep" / "bad").symlink_to(target)
        with pytest.raises(RunError, match=r"deep/bad, a link to"):
            check_inside(inside)
        (inside / "deep" / "bad").unlink()
    os.mkfifo(inside / "deep" / "bad")
    with pytest.raises(RunError, match=r"deep/bad, a FIFO"):
        check_inside(inside)


def test_files_to_write_follow_no_link(tmp_path):
    """A lock and a file of rows as links make nothing elsewhere; a FIFO blocks neither."""
    for opened, error in ((open_lock, RunError), (open_own, OSError)):
        path = tmp_path / opened.__name__
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(error):
            opened(path)
        assert not (tmp_path / "elsewhere").exists()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(error):
            opened(path)
        path.unlink()
        with opened(path) as file:
            file.write(b"1")
        assert path.read_bytes() == b"1"
