"""Measure lengths that ruff has no rule for: `python tools/style.py` prints each excess and exits with 1.

No function has more than 60 lines and no file more than 250 lines of code; half of all functions have fewer than 10
lines, and nine in ten fewer than 30. This holds for the three packages together, and for the tests, the benchmarks and
the tools each. Docstrings do not count, and neither do blank lines and comments of a file.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator

from source_tree import AROUND, FUNCTIONS, PACKAGES, Module, modules

FUNCTION_LINES, FILE_LINES = 60, 250
MEDIAN_LINES, NINTH_DECILE_LINES = 10, 30
GROUPS = (PACKAGES, *((folder,) for folder in AROUND))


def docstring_lines(node: ast.AST) -> set[int]:
    """Return the line numbers of a docstring."""
    first = node.body[0] if node.body else None
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if not (is_text and isinstance(first.value.value, str)):
        return set()
    return set(range(first.lineno, first.end_lineno + 1))


def functions(tree: ast.AST) -> list[ast.AST]:
    """Return all functions of a tree."""
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


def length(function: ast.AST) -> int:
    """Return the lines of a function without its docstring."""
    return function.end_lineno - function.lineno + 1 - len(docstring_lines(function))


def code_lines(module: Module) -> int:
    """Return the number of lines that are neither blank, comment nor docstring."""
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(module.source).readline)
    lines = {n for t in tokens if t.type not in blank for n in range(t.start[0], t.end[0] + 1)}
    holders = (n for n in ast.walk(module.tree) if isinstance(n, (ast.Module, ast.ClassDef, *FUNCTIONS)))
    return len(lines.difference(*map(docstring_lines, holders)))


def long_functions(module: Module) -> Iterator[str]:
    """Yield a line for each function that is too long."""
    for function in functions(module.tree):
        if length(function) > FUNCTION_LINES:
            yield f"{module.path}:{function.lineno}: {function.name} has {length(function)} of {FUNCTION_LINES} lines"


def long_files(module: Module) -> Iterator[str]:
    """Yield a line if a file is too long."""
    if code_lines(module) > FILE_LINES:
        yield f"{module.path}: {code_lines(module)} of {FILE_LINES} lines of code"


def quantiles(found: Iterable[Module]) -> tuple[int, int]:
    """Return the median and the ninth decile of the lengths of all functions."""
    lengths = sorted(length(function) for module in found for function in functions(module.tree))
    return lengths[len(lengths) // 2], lengths[len(lengths) * 9 // 10]


def long_distribution(found: Iterable[Module]) -> Iterator[str]:
    """Yield a line for each quantile that is too large."""
    folders = ", ".join(dict.fromkeys(module.path.partition("/")[0] for module in found))
    for name, value, limit in zip(
        ("median", "ninth decile"), quantiles(found), (MEDIAN_LINES, NINTH_DECILE_LINES), strict=True
    ):
        if value >= limit:
            yield f"{folders}: the {name} of function lengths is {value}, expected less than {limit}"


def excesses(found: list[Module]) -> list[str]:
    """Return a line for each limit that is exceeded."""
    return [
        *(line for module in found for line in (*long_functions(module), *long_files(module))),
        *long_distribution(found),
    ]


if __name__ == "__main__":
    report = [line for group in GROUPS for line in excesses(modules(*group))]
    print(
        "\n".join(report)
        or "Lengths are within their limits: median {}, ninth decile {} lines.".format(*quantiles(modules(*PACKAGES)))
    )
    sys.exit(bool(report))
