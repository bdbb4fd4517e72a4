"""Artifacts in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.reporting.formatting import artifact_name, milliseconds, parity, percent, size

if TYPE_CHECKING:
    from rich.table import Table


def artifact_table(artifacts: list[dict], title: str = "") -> Table:
    """Sum up artifacts for the terminal.

    Args:
        artifacts: As in the content of `write_report`.
        title: Heading of the table, none if empty.

    Returns:
        A table with the columns format, size, latency, accuracy and parity.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left")
    for heading in ("format", "size", "latency", "accuracy", "parity"):
        table.add_column(heading, justify="left" if heading in ("format", "parity") else "right")
    styles = {True: "green", False: "bold red", None: "dim"}
    for row in artifacts:
        passed = row.get("passed")
        cells = (
            artifact_name(row),
            size(row.get("bytes")),
            milliseconds(row.get("latency_ms")),
            percent(row.get("accuracy")),
        )
        # As Text, for a name in square brackets would be read as markup.
        table.add_row(*map(Text, cells), Text(parity(passed), style=styles[passed]))
    return table
