"""Malformed command lines end in one line: the short form of `make fuzz`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

LINES = 250


@pytest.fixture(scope="module")
def fuzzing(root):
    """The module of the benchmark."""
    spec = importlib.util.spec_from_file_location("fuzz_commands", root / "benchmarks" / "fuzz_commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_malformed_lines_end_in_one_line(root):
    """No traceback, no wait, no file elsewhere; most lines are refused, and some are right by chance."""
    script = root / "benchmarks" / "fuzz_commands.py"
    command = [sys.executable, str(script), "--count", str(LINES), "--seed", "7"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["lines"] == LINES
    assert found["refused"] > LINES / 2
    assert found["accepted"] > 0


def test_lines_are_the_same_for_a_seed(fuzzing, tmp_path):
    """A finding can be repeated."""
    fuzzing.write_files(tmp_path)
    first, again, other = (fuzzing.lines(seed, tmp_path) for seed in (3, 3, 4))
    assert [next(first) for _ in range(50)] == [next(again) for _ in range(50)]
    assert next(first) != next(other)


# In a process of its own: an alarm has ended that of all tests.
CONTROLS = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import fuzz_commands as fuzzing

def outcome(code, text=""):
    def command(_line):
        sys.stderr.write(text)
        sys.exit(code)
    return fuzzing.run([], command).partition(" ")[0]

def raising(_line):
    raise KeyError("x")

found = [fuzzing.run([], raising).partition(" ")[0]]
found += [outcome(2, "zoo: a\\n"), outcome(2, "Training …\\nzoo: a\\n"), outcome(0)]
found += [outcome(2, "zoo: a\\nb\\n"), outcome(2), outcome(1, "zoo: a\\n")]
fuzzing.SECONDS = 1
found.append(fuzzing.run([], lambda _line: time.sleep(5)).partition(" ")[0])
print(json.dumps(found))
"""


def test_what_is_wrong_is_found(printed, root):
    """Negative controls: a traceback, two lines, silence, another code, and a command that does not end."""
    found = printed("-c", CONTROLS, root / "benchmarks")
    assert found == ["TRACEBACK", "refused", "refused", "help", "LINES", "SILENT", "CODE", "HANGS"]
