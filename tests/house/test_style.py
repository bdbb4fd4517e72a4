"""House rules about style: `make lint` holds them by ruff and `tools/style.py`; here are their controls."""

from __future__ import annotations

import subprocess
import sys

import pytest
import style
from source_tree import PACKAGES, ROOT, modules, parse

HEAD = '"""Doc."""\n\nfrom __future__ import annotations\n\n'
NINE = "a: int, b: int, c: int, d: int, e: int, f: int, *, g: int, h: int, i: int"
# (ruff's rule, source that it refuses, source that it passes), each after HEAD
CONTROLS = [
    ("PLR0913", f'def f({NINE}) -> None:\n    """Do."""', f'def f({NINE[:-8]}) -> None:\n    """Do."""'),
    ("ANN001", 'def f(a) -> None:\n    """Do."""', 'def f(a: int) -> None:\n    """Do."""'),
    ("ANN002", 'def f(*a) -> None:\n    """Do."""', 'def f(*a: int) -> None:\n    """Do."""'),
    ("ANN003", 'def f(**a) -> None:\n    """Do."""', 'def f(**a: int) -> None:\n    """Do."""'),
    ("ANN201", 'def f():\n    """Do."""\n    return g()', 'def f() -> int:\n    """Do."""\n    return g()'),
    ("D101", "class A:\n    a = 1", "class _A:\n    a = 1"),
    ("D102", 'class A:\n    """A."""\n\n    def f(self) -> int:\n        return 1', "class _A:\n    a = 1"),
    ("D103", "def f() -> int:\n    return 1", "def _f() -> int:\n    return 1"),
    ("C901", "def _f(a: int) -> None:\n" + "    if a:\n        g()\n" * 14, "def _f(a: int) -> None:\n    g()"),
    ("PLR0915", "def _f() -> None:\n" + "    g()\n" * 51, "def _f() -> None:\n" + "    g()\n" * 50),
    ("T201", "print(1)", "write(1)"),
    ("S101", "assert a", "check(a)"),
    ("S110", "try:\n    f()\nexcept Exception:\n    pass", "f()"),
    ("E722", "try:\n    f()\nexcept:\n    g()", "f()"),
]


def ruff(source, path="zoo/a.py"):
    """Return the codes of ruff's complaints about a text."""
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", f"--stdin-filename={path}", "-"]
    found = subprocess.run(command, input=source, capture_output=True, text=True, cwd=ROOT, check=False)
    return {line.split()[1] for line in found.stdout.splitlines() if line.startswith(path)}


@pytest.mark.parametrize(("code", "bad", "good"), CONTROLS, ids=[code for code, *_ in CONTROLS])
def test_ruff_has_the_rule(code, bad, good):
    """Ruff, as it is configured here, refuses what is wrong and passes what is right."""
    assert code in ruff(f"{HEAD}{bad}\n")
    assert code not in ruff(f"{HEAD}{good}\n")


@pytest.mark.parametrize("path", ["zoo/a.py", "tests/a.py", "benchmarks/a.py", "tools/a.py"])
def test_annotations_are_lazy_everywhere(path):
    """Every file with code starts with the import from __future__."""
    assert "I002" in ruff('"""Doc."""\n\nx = 1\n', path)
    assert ruff('"""Only a docstring."""\n', path) == set()


@pytest.mark.parametrize("path", ["tests/a.py", "benchmarks/a.py", "tools/a.py"])
def test_tests_and_tools_may_print_and_assert(path):
    """The rules about print and assert hold in the three packages alone."""
    assert not {"T201", "S101"} & ruff(f"{HEAD}print(1)\nassert a\n", path)


def long_function(lines):
    """A function of so many lines, and a docstring."""
    return 'def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * (lines - 1)


def test_lengths_are_measured():
    """The controls: one line more than each limit is found; docstrings, blank lines and comments do not count."""
    assert [style.length(f) for f in style.functions(parse("a.py", long_function(12)).tree)] == [12]
    assert list(style.long_functions(parse("a.py", long_function(61))))
    assert list(style.long_functions(parse("a.py", long_function(60)))) == []
    assert list(style.long_files(parse("a.py", "x = 1\n" * 251)))
    assert list(style.long_files(parse("a.py", '"""Doc."""\n' + "x = 1\n\n# why\n" * 250))) == []
    ten, nine = ([parse("a.py", long_function(lines))] for lines in (10, 9))
    assert (len(style.excesses(ten)), style.excesses(nine)) == (1, [])
    assert style.quantiles([parse("a.py", "\n".join(map(long_function, range(2, 12))))]) == (7, 11)


def test_tests_benchmarks_and_tools_are_measured():
    """The limits hold for the packages together, and for each folder around them; a line names what exceeds one."""
    assert style.GROUPS == (PACKAGES, ("tests",), ("benchmarks",), ("tools",))
    paths = {module.path for group in style.GROUPS for module in modules(*group)}
    assert {"zoo/build.py", "tests/house/test_style.py", "benchmarks/run.py", "tools/style.py"} <= paths
    long = parse("tests/a.py", long_function(9) + "x = 1\n" * 251)
    assert style.excesses([long]) == ["tests/a.py: 260 of 250 lines of code"]
    slow = parse("benchmarks/a.py", long_function(10))
    assert style.excesses([slow]) == ["benchmarks: the median of function lengths is 10, expected less than 10"]
