"""A child process ends with its parent, and a signal ends a command in one line."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from zoo.common.files import remove_folder

# The parent prints the number of its child, which says when it is ready, and waits.
PARENT = """
import os, subprocess, sys, time
from zoo.common.ending import child_process
with child_process([sys.executable, "-c", sys.argv[1]], dict(os.environ), stdout=subprocess.PIPE) as child:
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(60)
"""
FIRST = {
    "both": "ending.end_with_parent()",
    "the kernel": "ending.die_with_parent()",
    "the pipe": "ending.die_with_parent = lambda: None; ending.end_with_parent()",
    "neither": "",
}
CHILD = "import time; from zoo.common import ending; {}; print('ready', flush=True); time.sleep(30)"
# A command that is stopped while it makes folders.
MAKING = """
import pathlib, sys
from zoo.common.ending import ending_cleanly
from zoo.common.files import whole_folder
with ending_cleanly():
    print("ready", flush=True)
    while True:
        with whole_folder(pathlib.Path(sys.argv[1])) as folder:
            (folder / "file").write_bytes(b"")
"""
# A command that is stopped while it holds a file.
COMMAND = """
import os, pathlib, signal, sys, time
import zoo.__main__ as main
from zoo.common.files import whole_folder

class Held:
    def main(self, *_, **options):
        with whole_folder(pathlib.Path(sys.argv[1])) as folder:
            (folder / "part").write_text("")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            print("ready", flush=True)
            while folder.exists():
                time.sleep(0.01)
        raise OSError("the folder is gone")

if "ignored" not in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as the tests may run under nohup
main.cli = Held()
main.main([])
"""


def lives(number):
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(number, seconds):
    """Whether a process ends in this time."""
    deadline = time.monotonic() + seconds
    while lives(number) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not lives(number)


@pytest.mark.parametrize("way", FIRST)
def test_child_of_a_killed_parent_ends(way, python):
    """By the kernel and by the pipe, each alone too; the control goes on."""
    process = python("-c", PARENT, CHILD.format(FIRST[way] or "pass"))
    child = int(process.stdout.readline())
    assert lives(child)
    process.kill()
    process.wait()
    if way == "neither":
        assert not ends(child, 0.3)
        os.kill(child, signal.SIGKILL)
    assert ends(child, 10)


def test_child_is_killed_by_an_exception(python):
    """Whatever leaves the block."""
    code = PARENT.replace("time.sleep(60)", "raise KeyboardInterrupt")
    process = python("-c", code, CHILD.format("pass"))
    assert ends(int(process.stdout.readline()), 10)
    process.communicate(timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_stopped_command_cleans_up(number, python, tmp_path):
    """One line, the exit code of the signal, and nothing half-written."""
    process = python("-c", COMMAND, tmp_path / "whole")
    assert process.stdout.readline() == "ready\n"
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (128 + number, "", f"zoo: Stopped by {number.name}\n")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_made_once_a_command_ends(python, tmp_path):
    """Folders that are made one after the other, when the signal comes at any moment between two of them."""
    for delay in range(16):
        process = python("-c", MAKING, tmp_path / "whole")
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay / 1000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143
        assert [path.name for path in tmp_path.iterdir() if path.name != "whole"] == []


def test_a_failing_cleanup_hinders_no_other(python, tmp_path):
    """Those before it are called, the line is written, and the exit code is that of the signal."""
    code = COMMAND.replace("as folder:", "as folder, cleaned_up(lambda: {}['no']):", 1)
    process = python("-c", f"from zoo.common.ending import cleaned_up\n{code}", tmp_path / "whole")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (143, "", "zoo: Stopped by SIGTERM\n")
    assert list(tmp_path.iterdir()) == []


def test_ignored_signal_stays_ignored(python, tmp_path):
    """As under nohup."""
    code = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{COMMAND}"
    process = python("-c", code, tmp_path / "whole", "ignored")
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143


def test_native_code_does_not_delay_the_end(python, tmp_path):
    """Python calls its handlers after a native call, which can take minutes."""
    native = "import ctypes, time; time.sleep = ctypes.CDLL(None).sleep"
    code = COMMAND.replace("while folder.exists():", "while True:").replace("time.sleep(0.01)", "time.sleep(20)")
    process = python("-c", f"{native}\n{code}", tmp_path / "whole")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 143
    assert list(tmp_path.iterdir()) == []


def test_handlers_are_as_before():
    """After a command in this process, and in a thread, where none can be set."""
    import threading

    from zoo.common.ending import ending_cleanly

    def run():
        with ending_cleanly():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    with ending_cleanly():
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_symbol_of_the_system():
    """`prctl` exists where the kernel is asked; elsewhere the pipe alone ends a child."""
    import ctypes

    if sys.platform == "linux":
        assert ctypes.CDLL(None).prctl


def test_a_folder_is_removed_while_a_thread_writes_into_it(tmp_path):
    """Neither it nor a part of it is left, however the two meet."""
    for attempt in range(60):
        folder, stop = tmp_path / "written", threading.Event()
        folder.mkdir()

        def write(folder=folder, stop=stop):
            for number in itertools.count():
                if stop.is_set():
                    return
                with contextlib.suppress(OSError):
                    (folder / f"{number}").write_bytes(bytes(1000))

        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.002 * (attempt % 5))
        remove_folder(folder)
        left = list(tmp_path.iterdir())
        stop.set()
        thread.join()
        assert left == list(tmp_path.iterdir()) == []
