"""Tables of artifacts for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.reporting.formatting import artifact_name, milliseconds, parity, percent, size

if TYPE_CHECKING:
    from rich.table import Table


def artifact_table(artifacts: list[dict], title: str = "") -> Table:
    """Return a table of artifacts.

    Args:
        artifacts: Rows as in the content of `write_report`.
        title: Title of the table, none if empty.

    Returns:
        A table with the columns format, size, latency, accuracy and parity.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left")
    for column in ("format", "size", "latency", "accuracy", "parity"):
        table.add_column(column, justify="left" if column in ("format", "parity") else "right")
    styles = {True: "green", False: "bold red", None: "dim"}
    for row in artifacts:
        passed = row.get("passed")
        cells = (
            artifact_name(row),
            size(row.get("bytes")),
            milliseconds(row.get("latency_ms")),
            percent(row.get("accuracy")),
        )
        # As Text, because a name in square brackets would be parsed as markup.
        table.add_row(*map(Text, cells), Text(parity(passed), style=styles[passed]))
    return table
