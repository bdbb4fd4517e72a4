"""The text of docs/coverage.md."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import importlib.metadata
import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.runs.environment import processor

PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "onnx", "onnxruntime", "openvino", "tf2onnx")
PASS, REFUSED, FAIL = "pass", "refused", "fail"
OURS, KERAS = "ours", "keras"
TITLES = {OURS: "ours", KERAS: "Keras'"}
MODEL = "\0model\0"
HEAD = """# Keras models in every format

Written by `make coverage` on {date}, {processor}, {cores} cores, which other programs used too:
seconds are rough. Versions: {versions}.

Does a Keras model get a file that computes the same? Each cell is one export in a process of its own, forked from one
that has imported Keras and TensorFlow, and ended after {limit:.0f} s: ours, `export.convert(model, format)`, and Keras'
own, `model.export(path, format=…)`. The file is then opened in its runtime and compared with `model.predict` on 2
examples (seed 0): TensorFlow for `saved_model`, LiteRT's plain interpreter without TensorFlow's operators for `tflite`,
ONNX Runtime after ONNX's own check, and OpenVINO in float32. The limit is the same for both: 1e-4 of the largest value
of an output, or 1e-2 where a layer of the model computes in half precision. Keras has no int8; ours is held to the
checks of `export.convert` on 32 other examples (seed 1), and the file then to a root mean square error of 0.32 of the
outputs. Keras' generator is seeded with 1 before a model is built.

- "refused" is an error of ours (`UnsupportedExport` or `BadOption`) that says in one line why a format does not take a
  model. All other errors are "fail", and so is a file that does not open, or computes something else.
- Seconds are those of the export alone. Ours contain the comparison in the runtime, which Keras has not, and the start
  of a second process with TensorFlow, which converts every model whose classes it can import.
- Memory is what the process and its children have allocated at the peak of the export, less what the process had
  after the import of Keras and TensorFlow. Pages of files, such as libraries, do not count.
"""
SUMMARY = """## Summary

{models} models; the backbones of keras-hub were not run. The last three columns are medians of ours divided by Keras',
over the models where both pass: above 1, Keras takes less.

| format | ours: pass | refused | fail | Keras': pass | fail | both pass | seconds | memory | bytes |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""


@dataclasses.dataclass(frozen=True)
class Source:
    """The models of a source.

    Args:
        about: a sentence about them.
        rows: cells of each finished model by maker and format.
        left: the models that were not run, or not in all formats.
    """

    about: str
    rows: Mapping[str, Any]
    left: Sequence[str]


def page(found: Mapping[str, Source], formats: Sequence[str], limit: float) -> str:
    """Return the page.

    Args:
        found: the sources by name.
        formats: the columns.
        limit: seconds that a cell may take.
    """
    versions = ", ".join(f"{name} {version}" for name, version in _versions())
    date, cores = datetime.date.today().isoformat(), os.cpu_count()
    head = HEAD.format(date=date, processor=processor(), cores=cores, versions=versions, limit=limit)
    parts = [head, summary([row for source in found.values() for row in source.rows.values()], formats)]
    parts += [section(name, source, formats) for name, source in found.items()]
    return "\n".join(parts)


def _versions() -> Iterable[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "is not installed"


def summary(rows: Sequence[Mapping[str, Any]], formats: Sequence[str]) -> str:
    """Return counts of the states by format, and medians of ours divided by Keras'."""
    lines = [_summary_row(rows, name) for name in formats]
    return SUMMARY.format(models=len(rows)) + "\n".join(lines) + "\n"


def _summary_row(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    mine, theirs = ([row[maker][name] for row in rows if name in row[maker]] for maker in (OURS, KERAS))
    counts = [collections.Counter(cell["state"] for cell in cells) for cells in (mine, theirs)]
    both = [(row[OURS][name], row[KERAS][name]) for row in rows if name in row[KERAS]]
    pairs = [pair for pair in both if all(cell["state"] == PASS for cell in pair)]
    ratios = [_median(a[key] / max(b[key], 1e-9) for a, b in pairs) for key in ("seconds", "memory", "bytes")]
    own = [counts[1][PASS], counts[1][FAIL], len(pairs)] if theirs else ["–"] * 3
    return f"| {' | '.join(map(str, [name, *(counts[0][state] for state in (PASS, REFUSED, FAIL)), *own, *ratios]))} |"


def _median(values: Iterable[float]) -> str:
    known = list(values)
    return f"{statistics.median(known):.2f}" if known else "–"


def section(name: str, source: Source, formats: Sequence[str]) -> str:
    """Return the table of a source, its reasons, and the names of the models that were not run."""
    reasons: dict[str, list[str]] = {}
    rows, lines = source.rows, [f"## {name}", "", source.about, ""]
    if rows:
        lines += [f"| model | {' | '.join(formats)} |", f"|---|{'---|' * len(formats)}"]
        lines += [f"| {model} | {' | '.join(_row(model, row, formats, reasons))} |" for model, row in rows.items()]
        lines += ["", "Each cell is ours / Keras', with the seconds where it passed; numbers stand for reasons below."]
        texts = [text.replace(MODEL, _several(models)) for text, models in reasons.items()]
        lines += ["", *(f"{number}. {text}" for number, text in enumerate(texts, start=1))]
    if source.left:
        lines += ["", f"Not run: {', '.join(source.left)}."]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _several(models: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(models))


def _row(model: str, row: Mapping[str, Any], formats: Sequence[str], reasons: dict[str, list[str]]) -> list[str]:
    return [" / ".join(_mark(model, row[maker].get(name), maker, reasons) for maker in TITLES) for name in formats]


def _mark(model: str, cell: Mapping[str, Any] | None, maker: str, reasons: dict[str, list[str]]) -> str:
    """Return the text of a cell, and note the reason that its number stands for."""
    if cell is None:
        return "–"
    note = noted(cell, model, maker)
    number = ""
    if note:
        reasons.setdefault(note, []).append(model)
        number = f" ({list(reasons).index(note) + 1})"
    word = f"{cell['seconds']:.1f} s" if cell["state"] == PASS else cell["state"]
    return f"{f'**{word}**' if cell['state'] == FAIL else word}{number}"


def noted(cell: Mapping[str, Any], model: str, maker: str) -> str:
    """Return the reason of a cell without paths, a mark for the names of models in front; "" if there is none."""
    parts = [cell["reason"].rstrip(". ")] if cell["reason"] else []
    if cell.get("foreign"):
        parts.append(f"Operators that plain LiteRT or ONNX lacks: {', '.join(cell['foreign'])}")
    text = re.sub(r"(?<![\w.:/])/\S+/", "", ". ".join(parts).replace("|", "\\|"))
    # Addresses and numbers of layers differ between models of one reason.
    text = re.sub(r"0x[0-9a-f]+", "0x…", re.sub(rf"\b{re.escape(model)}\b", "the model", text))
    return f"{MODEL}, {TITLES[maker]}: {text}" if text else ""
