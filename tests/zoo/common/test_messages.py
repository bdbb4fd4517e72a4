"""Messages stay one readable line, whatever was received."""

from __future__ import annotations

import errno
import shutil

import pytest

from zoo.common.disk import describe_os_error, full_disk_hint
from zoo.common.errors import BadOption, shortened

A = "a" * 25_000


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            f"Expected a name. Received: name={A!r}. Known: x.",
            f"Expected a name. Received: name='{'a' * 100}…'. Known: x.",
        ),
        (f"Expected a name. Received: {A}", f"Expected a name. Received: {'a' * 100}…"),
        (f"'{'a b ' * 99}' is no number.", f"'{'a b ' * 25}…' is no number."),
        (f"""Received: "it's {A}" here.""", f"""Received: "it's {"a" * 95}…" here."""),
        # An apostrophe is no quote.
        (f"The model's name, {'and so on, ' * 30}not the user's.",) * 2,
        ("Expected x. Received: 5.",) * 2,
    ],
)
def test_long_values_are_shortened(message, expected):
    """Quoted or bare, with spaces or apostrophes; sentences stay whole."""
    assert str(BadOption(message)) == shortened(message) == expected


def test_long_lists_keep_what_to_do():
    """Of many short values, the first remain, and the end of the message."""
    found = shortened(f"Expected three widths. Received: widths={list(range(5000))}. Give three.")
    assert found.startswith("Expected three widths. Received: widths=[0, 1, 2, ")
    assert found.endswith("4999]. Give three.")
    assert len(found) < 500


@pytest.mark.parametrize("kind", ["'", '"', "' ", "a' 'b", " "])
def test_shortening_takes_no_time(kind):
    """Values of a megabyte, also of quotes alone."""
    assert len(shortened(f"Received: {kind * 1_000_000}")) < 1000


def test_errors_of_the_system_name_their_file(tmp_path):
    """A missing file, one without a name, and a folder that could not be copied."""
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "missing").read_bytes()
    assert describe_os_error(missing.value) == f"Could not use {tmp_path / 'missing'}: No such file or directory."
    full = OSError(errno.ENOSPC, "No space left on device")
    assert describe_os_error(full).startswith("Could not read or write a file: No space left on device.")
    (tmp_path / "from").mkdir()
    (tmp_path / "from/link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(shutil.Error) as copied:
        shutil.copytree(tmp_path / "from", tmp_path / "to")
    found = describe_os_error(copied.value)
    assert found.startswith(f"Could not copy {tmp_path / 'from/link'} to {tmp_path / 'to/link'}: ")
    assert "[(" not in found


def test_full_disks_are_named(tmp_path, monkeypatch):
    """A folder of a full disk is named with what to do; the control, with space, is not."""
    assert full_disk_hint([tmp_path, tmp_path / "missing"]) == ""
    monkeypatch.setattr("zoo.common.disk.SCARCE", 1 << 60)
    assert f"No space is left in {tmp_path}" in full_disk_hint([tmp_path])
