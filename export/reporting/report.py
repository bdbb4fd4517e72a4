"""A report: report.json for programs, and report.html, one file that needs no network, for people."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from export.reporting import formatting
from export.reporting.page import view
from zoo.common.errors import RunError
from zoo.common.files import finite

TEMPLATE = "report.html.jinja"
JSON, HTML = "report.json", "report.html"
FILTERS = ("percent", "size", "milliseconds", "duration", "points", "parity", "rate", "listed")


def write_report(content: dict, folder: Path) -> Path:
    """Write report.json and report.html; the former ones stay whole until both new ones are.

    Args:
        content: title, run, created, machine, summary, recipe, curves, labels, artifacts, compressions and confusion
            (rows: truth, columns: prediction); of several runs "runs", their summaries with name and path, in place of
            what is told of one. Any of them, and any value inside, may be missing or None; the page then says what to
            do. Accuracies are shares (0 to 1), or the figure that is named under "figure"; sizes are bytes, times of
            artifacts milliseconds, the time of training seconds.
        folder: The run directory, or another folder.

    Returns:
        Path of report.html.

    Raises:
        RunError: `folder` is no directory.
        TypeError: `content` holds something that JSON does not know.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"Expected a run's directory. Received: folder={str(folder)!r}. Train first: zoo train NAME")
    content = finite(content)
    _replace(folder, {JSON: _json(content), HTML: _html(content)})
    return folder / HTML


def _json(content: dict) -> str:
    """Serialize with indent 2, but lists of numbers on one line: a row of a confusion matrix is one thing."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    # A newline never stands raw inside a JSON string, so this finds lists only.
    numbers = re.compile(r'\[\n([^\[\]{}"]+)\]')
    return numbers.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _replace(folder: Path, texts: dict[str, str]) -> None:
    """Write all files beside their places, and move them there only when all are whole."""
    parts = {folder / name: folder / f".{name}.{os.getpid()}.tmp" for name in texts}
    try:
        for path, part in parts.items():
            part.write_text(texts[path.name], encoding="utf-8", errors="backslashreplace", newline="\n")
        for path, part in parts.items():
            os.replace(part, path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _html(content: dict) -> str:
    """Fill the template."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    blocks = {"trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, **blocks)
    environment.filters.update((name, getattr(formatting, name)) for name in FILTERS)
    return environment.get_template(TEMPLATE).render(view(content))
