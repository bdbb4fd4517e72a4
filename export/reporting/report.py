"""The files of a report: report.json, and report.html as a single file without external resources."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from export.reporting import formatting
from export.reporting.page import page_context
from zoo.common.errors import RunError
from zoo.common.files import finite

TEMPLATE = "report.html.jinja"
JSON, HTML = "report.json", "report.html"
FILTERS = ("percent", "size", "milliseconds", "duration", "points", "parity", "throughput", "name_list")


def write_report(content: dict, folder: Path) -> Path:
    """Write report.json and report.html; replaces existing ones only when both are complete.

    Args:
        content: title, run, created, machine, summary, recipe, curves, labels, artifacts, compressions and confusion
            (rows: truth, columns: prediction); for several runs "runs", their summaries with name and path, instead of
            the sections of a single run. Any of them, and any value inside, may be missing or None; the page then shows
            the command that adds it. Accuracies are fractions (0 to 1), or the metric named by "metric"; sizes are
            bytes, latencies milliseconds, training times seconds.
        folder: The run directory, or another folder.

    Returns:
        Path of report.html.

    Raises:
        RunError: `folder` is not a directory.
        TypeError: `content` has a value that JSON does not support.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"Expected a run's directory. Received: folder={str(folder)!r}. Train first: zoo train NAME")
    content = finite(content)
    _replace(folder, {JSON: _json(content), HTML: _html(content)})
    return folder / HTML


def _json(content: dict) -> str:
    """Serialize with indent 2, with lists of numbers on one line, such as the rows of a confusion matrix."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    # A JSON string contains no raw newline, so that this matches lists only.
    numbers = re.compile(r'\[\n([^\[\]{}"]+)\]')
    return numbers.sub(lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"


def _replace(folder: Path, texts: dict[str, str]) -> None:
    """Write all files under temporary names, and rename them when all are complete."""
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
    """Render the template."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    blocks = {"trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, **blocks)
    environment.filters.update((name, getattr(formatting, name)) for name in FILTERS)
    return environment.get_template(TEMPLATE).render(page_context(content))
