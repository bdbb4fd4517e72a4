"""A folder that replaces another: whole at every moment, whenever the process is killed."""

from __future__ import annotations

import contextlib
import errno
import signal
from pathlib import Path

import pytest

from zoo.common import exchange as exchange_module
from zoo.common.errors import RunError
from zoo.common.exchange import exchange, renameat2
from zoo.common.files import REPLACED, restore_all, restore_replaced, whole_folder, write_bytes

# Replaces PLACE by a folder with "new" in its file; kills itself at the given call of a function that changes names.
REPLACE = """
import os, shutil, signal, sys
from pathlib import Path
from zoo.common import files

place, atomic, kill_at = Path(sys.argv[1]), sys.argv[2] == "atomic", int(sys.argv[3])
calls = 0

def killing(function):
    def call(*arguments, **options):
        global calls
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return function(*arguments, **options)
    return call

with files.whole_folder(place) as temporary:
    (temporary / "file").write_text("new")
    files.os = type("os", (), {**vars(os), "replace": staticmethod(killing(os.replace))})
    files.shutil = type("shutil", (), {**vars(shutil), "rmtree": staticmethod(killing(shutil.rmtree))})
    files.exchange = killing(files.exchange) if atomic else lambda first, second: False
print(calls)
"""
# Calls of a whole replacement: exchange and three rmtree; or rmtree, two replace and two rmtree.
CALLS = {"atomic": 4, "renames": 5}


def replaced(python, place: Path, mode: str, kill_at: int) -> int:
    """Replace a folder in a process that kills itself at a call; return its exit code."""
    process = python("-c", REPLACE, place, mode, kill_at)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL or out.strip() == str(CALLS[mode]), err
    return process.returncode


@pytest.mark.parametrize(("mode", "kill_at"), [(mode, i) for mode, count in CALLS.items() for i in range(count + 1)])
def test_killed_replacement_leaves_old_or_new(python, tmp_path, mode, kill_at):
    """Killed before each call, and not at all: the folder is there and whole, and the next replacement tidies up."""
    place = tmp_path / "artifact"
    place.mkdir()
    (place / "file").write_text("old")
    code = replaced(python, place, mode, kill_at)
    assert code == (0 if kill_at == CALLS[mode] else -signal.SIGKILL)
    if mode == "atomic":
        # No reader has to restore anything.
        assert (place / "file").is_file()
    restore_all(tmp_path)
    assert (place / "file").read_text() in ("old", "new")
    assert [path.name for path in place.iterdir()] == ["file"]
    assert replaced(python, place, mode, CALLS[mode]) == 0
    assert (place / "file").read_text() == "new"
    assert not list(tmp_path.glob(f"{REPLACED}*"))


def test_restoring_gives_back_the_old_folder(tmp_path):
    """Without the new folder the old one returns; with it, and with nothing to restore, nothing changes."""
    old, place = tmp_path / f"{REPLACED}artifact", tmp_path / "artifact"
    restore_replaced(place)
    assert not place.exists()
    old.mkdir()
    (old / "file").write_text("old")
    restore_replaced(place)
    assert (place / "file").read_text() == "old"
    assert not old.exists()
    old.mkdir()
    restore_replaced(place)
    assert (place / "file").read_text() == "old"
    assert old.exists()
    restore_replaced(Path("/"))


def test_canary_renameat2_exchanges_two_folders(tmp_path):
    """`renameat2` of the C library, called through ctypes; if this fails, replacements take two renames."""
    if renameat2() is None:
        pytest.fail("The C library has no renameat2: replacements of folders are no longer atomic here.")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    assert exchange(tmp_path / "a", tmp_path / "b"), "renameat2 refuses RENAME_EXCHANGE on this file system"
    assert (tmp_path / "a" / "b").is_file()
    assert (tmp_path / "b" / "a").is_file()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "none")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, None])
def test_systems_without_the_exchange_take_two_renames(tmp_path, monkeypatch, code):
    """No such function, or a file system that refuses it: the folder is replaced all the same."""

    def refuse(*_: object) -> int:
        exchange_module.ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(exchange_module, "renameat2", lambda: refuse if code else None)
    place = tmp_path / "artifact"
    for text in ("old", "new"):
        with whole_folder(place) as temporary:
            (temporary / "file").write_text(text)
    assert (place / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
    with contextlib.suppress(ZeroDivisionError), whole_folder(place):
        raise ZeroDivisionError
    assert (place / "file").read_text() == "new"


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_names_that_no_file_can_have(name, tmp_path):
    """One line before anything is made."""
    for write in (lambda path: write_bytes(path, b"x"), lambda path: whole_folder(path).__enter__()):
        with pytest.raises(RunError, match=r"Expected a path\. Received: .*no file can be called"):
            write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
