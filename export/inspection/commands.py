"""The commands `zoo inspect` and `zoo doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from export.core.artifact_graph import Value
from export.doctor import BROKEN, check_installation
from export.inspection.inspect import Inspection
from export.inspection.inspect import inspect as inspect_file
from zoo.common.console import json_option, print_json, print_table
from zoo.common.errors import ExportError

MAX_NAMES = 8  # layers and operators to print by name


@click.command("inspect")
@click.argument("path")
@json_option
def inspect(path: str, as_json: bool) -> None:
    """Inspect a model file (.tflite, .onnx, .keras, SavedModel, OpenVINO) without running it.

    PATH is the file, the SavedModel, or the folder of an artifact. Prints operators, weights, shapes, sizes and
    sparsity.
    """
    inspection = inspect_file(Path(path))
    if as_json:
        print_json(inspection.to_json())
        return
    print_table(("property", "value"), _rows(inspection))


def _rows(found: Inspection) -> list[tuple[str, str]]:
    """Return the rows of the printed table."""
    opset = [("opset", str(found.opset))] if found.opset else []
    layers = sorted(found.sparsity.items(), key=lambda item: -item[1])
    sparse = [f"{name} {fraction:.1%}" for name, fraction in layers if fraction > 0]
    return [
        ("kind", found.kind),
        *opset,
        ("size", f"{found.bytes / 1e3:,.1f} kB, {found.gzip_bytes / 1e3:,.1f} kB gzipped"),
        *[("input", _tensor(value)) for value in found.inputs],
        *[("output", _tensor(value)) for value in found.outputs],
        ("operators", ", ".join(f"{count} {kind}" for kind, count in found.operators.items())),
        ("weights", ", ".join(f"{count:,} {dtype}" for dtype, count in found.weights.items())),
        ("int8", f"{found.int8_weights:.1%} of the weights, {found.int8_operators:.1%} of the operators"),
        ("float fallback", _shortened(found.float_fallback)),
        ("unsupported operators", _shortened(found.unsupported)),
        ("sparsity", f"{found.total_sparsity:.1%} of the kernels; {_shortened(sparse)}" if sparse else "none"),
    ]


def _tensor(value: Value) -> str:
    sizes = ", ".join("free" if size is None else str(size) for size in value.shape)
    return f"{value.name} ({sizes}) {value.dtype}"


def _shortened(names: Sequence[str]) -> str:
    more = [f"and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return ", ".join([*names[:MAX_NAMES], *more]) or "none"


@click.command("doctor")
@json_option
def doctor(as_json: bool) -> None:
    """Check every converter and runtime of this environment.

    Converts, loads and runs a small model in every format, and imports the packages of every compression. Exits with
    code 2 if one is broken.
    """
    results = check_installation(progress=not as_json and sys.stderr.isatty())
    if as_json:
        print_json([result.to_json() for result in results])
    else:
        rows = [(r.name, r.kind, r.status, f"{r.seconds:.1f} s", r.versions_text, r.reason) for r in results]
        print_table(("name", "kind", "status", "time", "versions", "reason and fix"), rows, right=(3,))
    broken = [result.name for result in results if result.status == BROKEN]
    if broken:
        raise ExportError(f"{len(broken)} of {len(results)} do not work here: {', '.join(broken)}")
