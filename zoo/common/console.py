"""Printing of tables and JSON, shared by all commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(content: Any) -> None:
    """Print strict JSON on standard output."""
    import json

    click.echo(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """Print a plain-text table, never cut to the terminal's width.

    Args:
        head: column names.
        rows: cells of each row.
        right: indices of the right-aligned columns.
    """
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for number, row in enumerate(cells):
        parts = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        line = "  ".join(parts).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 and sys.stdout.isatty() else line)
