"""A run's report: report.json for programs, and report.html, one file that needs no network, for people."""

from __future__ import annotations

import collections
import datetime
import heapq
import json
import math
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export import _plots
from zoo._errors import RunError

if TYPE_CHECKING:
    from rich.table import Table

TEMPLATE = "report.html.jinja"
CONFUSED_PAIRS = 10
ENVIRONMENT = ("hardware", "precision", "strategy", "seed", "versions")
Z_95 = 1.959964  # two-sided 95% quantile of the normal distribution


def write_report(content: dict, folder: Path) -> Path:
    """Write report.json and report.html; the former ones stay whole until both new ones are.

    Args:
        content: title, run, created, summary, recipe, curves, labels, artifacts, compressions and confusion (rows:
            truth, columns: prediction). Any of them, and any value inside, may be missing or None; the page then
            says what to do. Accuracies are shares (0 to 1), or the figure that the summary names under "figure"; sizes
            are bytes, times of artifacts milliseconds, the time of training seconds.
        folder: The run directory.

    Returns:
        Path of report.html.

    Raises:
        RunError: `folder` is no directory.
        TypeError: `content` holds something that JSON does not know.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"Expected a run's directory. Received: folder={str(folder)!r}. Train first: zoo train NAME")
    content = _finite(content)
    texts = {"report.json": _json(content), "report.html": _html(content)}
    _replace(folder, texts)
    return folder / "report.html"


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
    for row in map(_gaps, artifacts):
        cells = (
            artifact_name(row),
            size(row["bytes"]),
            milliseconds(row["latency_ms"]),
            percent(row["accuracy"]),
        )
        # As Text, for a name in square brackets would be read as markup.
        table.add_row(*map(Text, cells), Text(parity(row["passed"]), style=styles[row["passed"]]))
    return table


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Give the 95% interval of a share (Wilson 1927), which stays inside 0 to 1 also for few examples.

    Args:
        share: Measured share, 0 to 1.
        count: How many examples it was measured on, at least 1.

    Returns:
        Lower and upper bound, 0 to 1.
    """
    scale = 1 + Z_95**2 / count
    middle = (share + Z_95**2 / (2 * count)) / scale
    reach = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2)) / scale
    return max(0.0, middle - reach), min(1.0, middle + reach)


def confused_pairs(matrix: list[list[int]], labels: list[str], limit: int = CONFUSED_PAIRS) -> list[dict]:
    """List the most frequent confusions.

    Args:
        matrix: Counts of examples, shape (classes, classes); rows are the truth, columns the prediction.
        labels: One for each class.
        limit: How many to list.

    Returns:
        Dicts with truth, prediction, count and share (of the examples of that truth), most frequent first.
    """
    cells = ((count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if count and i != j)
    return [
        {"truth": labels[i], "prediction": labels[j], "count": count, "share": count / sum(matrix[i])}
        for count, i, j in heapq.nsmallest(limit, cells, key=lambda cell: (-cell[0], *cell[1:]))
    ]


def artifact_name(artifact: dict) -> str:
    """Name an artifact as its folder is named: format, or format-compression."""
    return "-".join(filter(None, (artifact.get("format"), artifact.get("compression")))) or "unnamed"


def percent(value: float | None, digits: int = 1) -> str:
    """Format a share as a percentage; only what is exactly 1 reads 100%."""
    if value is None:
        return "–"
    text = f"{100 * value:.{digits}f}%"
    return f">{100 - 10**-digits:.{digits}f}%" if value < 1 and text.startswith("100") else text


def size(count: float | None) -> str:
    """Format a number of bytes with three digits and a decimal unit."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def milliseconds(value: float | None) -> str:
    """Format a time in milliseconds with three digits."""
    return "–" if value is None else f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def duration(seconds: float | None) -> str:
    """Format a number of seconds for people."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def points(value: float | None) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def parity(passed: bool | None) -> str:
    """Say in a word, with a sign for quick eyes, how the comparison with the source ended."""
    return {True: "✓ passed", False: "✗ failed", None: "not checked"}[passed]


def _finite(value: Any) -> Any:
    """Copy nested data with null in place of the numbers that JSON cannot write."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    environment.filters.update((f.__name__, f) for f in (percent, size, milliseconds, duration, points, parity))
    return environment.get_template(TEMPLATE).render(_view(content))


def _view(content: dict) -> dict:
    """Turn the content, of which anything may be missing, into all that the template asks for."""
    summary = _gaps(content.get("summary"))
    artifacts = [_gaps(artifact) for artifact in content.get("artifacts") or []]
    for artifact in artifacts:
        artifact["tolerance"] = _gaps(artifact["tolerance"])
        artifact["name"] = artifact_name(artifact)
        artifact["difference"] = _minus(artifact["accuracy"], artifact["source_accuracy"])
    run = content.get("run")
    return {
        "title": content.get("title") or "Report",
        "run": run,
        "run_argument": shlex.quote(run) if run else "RUN",
        "recipe_argument": shlex.quote(Path(run).parent.name or "RECIPE") if run else "RECIPE",
        "created": _moment(content.get("created")),
        "summary": summary,
        "figure": FIGURES.get(summary["figure"], "accuracy"),
        "interval": None
        if summary["figure"] in FIGURES
        else _interval(summary["test_accuracy"], summary["test_images"]),
        "curves": _curves(content.get("curves") or []),
        "confusion": _confusion(content),
        "artifacts": artifacts,
        "shipped": [artifact for artifact in artifacts if artifact["passed"]],
        "conditions": _conditions(artifacts),
        "tradeoffs": _tradeoffs(artifacts),
        "compressions": [_gaps(c) | {"steps": list(map(_gaps, c["steps"]))} for c in content.get("compressions") or []],
        "recipe": list(_dotted(content.get("recipe") or {})),
        "environment": list(_dotted({key: summary[key] for key in ENVIRONMENT if summary[key] is not None})),
    }


def _gaps(values: dict | None) -> dict:
    """Copy a dict so that what is missing reads None."""
    return collections.defaultdict(lambda: None, values or {})


def _minus(a: float | None, b: float | None) -> float | None:
    """Subtract, where there is something to subtract."""
    return None if a is None or b is None else a - b


def _moment(created: str | None) -> str | None:
    """Write a time in ISO 8601 for people, in UTC; anything else as it came."""
    try:
        moment = datetime.datetime.fromisoformat(created or "").astimezone(datetime.timezone.utc)
    except ValueError:
        return created
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _interval(accuracy: float | None, count: int | None) -> tuple[float, float] | None:
    """Give the interval of the test accuracy, if it was measured on a known number of examples."""
    return wilson_interval(accuracy, count) if accuracy is not None and count else None


# What a summary calls its main figure where that is no accuracy.
FIGURES = {"mean_average_precision": "mean average precision", "r2": "R²"}
# Name, lines (label and key), height in inches, text of a value, text of a tick, and which value is best.
CURVES = (
    ("Loss", {"training": "loss", "validation": "val_loss"}, 2.7, "{:.3g}".format, "{:g}".format, min),
    (
        "Accuracy",
        {"training": "accuracy", "validation": "val_accuracy"},
        2.7,
        percent,
        _plots.percent_tick,
        max,
    ),
    (
        "Mean average precision",
        {"training": "mean_average_precision", "validation": "val_mean_average_precision"},
        2.7,
        percent,
        _plots.percent_tick,
        max,
    ),
    ("RMSE", {"training": "rmse", "validation": "val_rmse"}, 2.7, "{:.4g}".format, "{:g}".format, min),
    ("Learning rate", {"": "learning_rate"}, 1.5, None, "{:g}".format, None),
    ("Examples per second", {"": "images_per_second"}, 1.5, None, "{:,.0f}".format, None),
)


def _curves(rows: list[dict]) -> list[dict]:
    """Draw the curves that have a point, each with a caption that names its best epoch."""
    drawn = []
    for name, keys, height, show, tick, best in CURVES:
        series = {label: _line(rows, key) for label, key in keys.items()}
        series = {label: line for label, line in series.items() if line}
        if series:
            label, line = list(series.items())[-1]
            note = ""
            if best:
                epoch, value = best(line, key=lambda point: point[1])
                note = f"Best in {label}: {show(value)}, epoch {epoch}."
            alt = f"{name} over {len(rows)} epochs. {note}".strip()
            svg = _plots.curves(name.split()[0].lower(), series, alt=alt, height=height, tick=tick)
            drawn.append({"name": name, "note": note, "svg": svg})
    return drawn


def _line(rows: list[dict], key: str) -> list[tuple[int, float]]:
    """Collect one curve's points, leaving out the epochs in which it was not measured."""
    found = ((row["epoch"] or number, row[key]) for number, row in enumerate(map(_gaps, rows), 1))
    return [(epoch, value) for epoch, value in found if value is not None]


def _confusion(content: dict) -> dict | None:
    """Draw the confusion matrix if the classes are not too many, and list what is confused most."""
    matrix = content.get("confusion")
    if not matrix:
        return None
    labels = content.get("labels") or []
    if len(labels) != len(matrix):
        labels = [str(index) for index in range(len(matrix))]
    count, right = sum(map(sum, matrix)), sum(row[index] for index, row in enumerate(matrix))
    unit = "tokens" if (content.get("summary") or {}).get("task") == "tag" else "examples"
    alt = f"Confusion matrix of {len(matrix)} classes: {right} of {count} {unit} on the diagonal."
    svg = _plots.confusion(matrix, labels, alt=alt) if len(matrix) <= _plots.DRAWN_CLASSES else None
    counts = {"classes": len(matrix), "count": count, "wrong": count - right, "unit": unit}
    return {**counts, "svg": svg, "pairs": confused_pairs(matrix, labels)}


def _conditions(artifacts: list[dict]) -> dict[str, str]:
    """Say under which conditions the artifacts were measured, each value once."""
    keys = ("images", "batch", "threads")
    found = {key: sorted({a[key] for a in artifacts if a[key] is not None}) for key in keys}
    return {key: " or ".join(f"{value:,}" for value in values) for key, values in found.items()}


def _tradeoffs(artifacts: list[dict]) -> list[dict]:
    """Draw accuracy against size and against latency, from the artifacts that have both."""
    sources = {a["source_accuracy"] for a in artifacts} - {None}
    source = sources.pop() if len(sources) == 1 else None
    drawn = []
    for name, key, tick in (("size", "bytes", size), ("latency", "latency_ms", milliseconds)):
        shown = [a for a in artifacts if a["accuracy"] is not None and a[key]]
        dots = [_plots.Point(a["name"], a[key], a["accuracy"], a["passed"] is not False) for a in shown]
        if dots:
            best = [dot.label for dot in dots if dot.passed and not _plots.dominated(dot, dots)]
            alt = f"Accuracy against {name}, {len(dots)} artifacts; not dominated: {', '.join(best) or 'none'}."
            svg = _plots.tradeoff(name, dots, alt=alt, tick=tick, source=source)
            drawn.append({"name": name, "svg": svg})
    return drawn


def _dotted(values: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested dicts into the dotted names that `--set` takes, values as JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
