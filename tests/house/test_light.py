"""`make check` imports no TensorFlow."""

from __future__ import annotations

import pytest
from source_tree import ROOT

TESTS = {
    "light": "def test_one():\n    import json",
    "heavy": "def test_one():\n    import tensorflow",
    "heavy module": "import tensorflow\n\n\ndef test_one():\n    pass",
    "failing": "def test_one():\n    assert False",
}


@pytest.mark.parametrize(
    ("name", "option", "code"),
    [
        ("light", "--light", 0),
        ("heavy", "--light", 1),
        ("heavy module", "--light", 4),
        ("heavy", "--verbose", 0),
        ("failing", "--light", 1),
    ],
)
def test_light_session_fails_with_tensorflow(python, tmp_path, name, option, code):
    """A test fails with --light if it imports a module of that name, and only then."""
    (tmp_path / "tensorflow.py").touch()
    (tmp_path / "test_one.py").write_text(TESTS[name])
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    path = f"{tmp_path}:{ROOT / 'tests'}:{ROOT}"
    process = python("-m", "pytest", "-q", "-p", "conftest", option, tmp_path, cwd=tmp_path, env={"PYTHONPATH": path})
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    assert ("imported TensorFlow" in out + err) == ("heavy" in name and option == "--light")


def test_check_is_light():
    """`make check` passes the option."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    command = next(line for line in lines if "--light" in line)
    assert "not tensorflow" in command
