"""`zoo inspect` and `zoo doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from export.doctor import BROKEN, diagnose
from export.inspection.inspect import inspect as look_at
from zoo.common.console import json_option, print_json, print_table
from zoo.common.errors import ExportError

SHOWN = 8  # layers and names, before they are counted only


@click.command("inspect")
@click.argument("path")
@json_option
def inspect(path: str, as_json: bool) -> None:
    """Say what stands in the model at PATH, anyone's: operators, weights, shapes and sizes; nothing of it is run."""
    found = look_at(Path(path))
    if as_json:
        print_json(found)
        return
    print_table(("what", "found"), _lines(found))


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was found, as people read it."""
    opset = [("opset", str(found["opset"]))] if found["opset"] else []
    layers = sorted(found["sparsity"].items(), key=lambda item: -item[1])
    zeros = [f"{name} {share:.1%}" for name, share in layers if share > 0]
    return [
        ("kind", found["kind"]),
        *opset,
        ("size", f"{found['bytes'] / 1e3:,.1f} kB, {found['gzip'] / 1e3:,.1f} kB gzipped"),
        *[("input", _tensor(value)) for value in found["inputs"]],
        *[("output", _tensor(value)) for value in found["outputs"]],
        ("operators", ", ".join(f"{count} {kind}" for kind, count in found["operators"].items())),
        ("weights", ", ".join(f"{count:,} {dtype}" for dtype, count in found["weights"].items())),
        ("int8", f"{found['int8_weights']:.1%} of the weights, {found['int8_operators']:.1%} of the operators"),
        ("float islands", _few(found["float_islands"])),
        ("foreign operators", _few(found["foreign"])),
        ("zeros", f"{found['sparse']:.1%} of the kernels; {_few(zeros)}" if zeros else "none"),
    ]


def _tensor(value: dict[str, Any]) -> str:
    sizes = ", ".join("free" if size is None else str(size) for size in value["shape"])
    return f"{value['name']} ({sizes}) {value['dtype']}"


def _few(names: list[str]) -> str:
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more]) or "none"


@click.command("doctor")
@json_option
def doctor(as_json: bool) -> None:
    """Try every converter and runtime on a small model, and say what works here."""
    found = diagnose(progress=not as_json and sys.stderr.isatty())
    if as_json:
        print_json([result.to_json() for result in found])
    else:
        rows = [(r.name, r.kind, r.state, f"{r.seconds:.1f} s", r.versions_text, r.reason) for r in found]
        print_table(("name", "kind", "state", "time", "versions", "why, and what mends it"), rows, right=(3,))
    broken = [result.name for result in found if result.state == BROKEN]
    if broken:
        raise ExportError(f"{len(broken)} of {len(found)} do not work here: {', '.join(broken)}")
