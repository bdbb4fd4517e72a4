"""`zoo formats`, `zoo export`, `zoo verify`, `zoo report` and `zoo demo`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

import export as room
import training
from export._compression import compressions
from export._format import formats
from training._run import Run
from training._tasks import NAMES
from zoo._console import json_option, print_json, print_table
from zoo._errors import BadOption


@click.command("formats")
@json_option
def list_formats(as_json: bool) -> None:
    """List the formats to export to."""
    found = [formats[name] for name in formats.names()]
    if as_json:
        print_json([{"name": f.name, "file": f.file, "summary": f.summary} for f in found])
        return
    print_table(("format", "what it is"), [(f.name, f.summary) for f in found])


@click.command("compressions")
@json_option
def list_compressions(as_json: bool) -> None:
    """List what makes networks smaller, for `zoo export --compress`."""
    found = [compressions[name] for name in compressions.names()]
    if as_json:
        print_json([{"name": c.name, "summary": c.summary} for c in found])
        return
    print_table(("compression", "how it is written, and what it does"), [(c.name, c.summary) for c in found])


@click.command("export")
@click.argument("run")
@click.option("--format", "chosen", multiple=True, metavar="FORMAT...", help="One or more formats; see: zoo formats.")
@click.option(
    "--compress", default="", metavar="CHAIN", help='Make it smaller first: "prune:0.8 | qat"; see: zoo compressions.'
)
@click.option("--all", "every", is_flag=True, help="Every format.")
@click.argument("more", nargs=-1, metavar="")
@json_option
def export(run: str, chosen: tuple[str, ...], every: bool, more: tuple[str, ...], compress: str, as_json: bool) -> None:
    """Export a finished RUN; each artifact is compared with its source in its real runtime."""
    names = formats.names() if every else [*chosen, *more]
    if not names:
        raise BadOption(f"zoo export needs --format with one or more of {', '.join(formats.names())}, or --all.")
    for name in names:
        # Look the names up before anything heavy happens.
        _ = formats[name]
    _print_artifacts(room.export_all(run, names, compress), as_json)


@click.command("verify")
@click.argument("paths", nargs=-1, required=True)
@json_option
def verify(paths: tuple[str, ...], as_json: bool) -> None:
    """Compare the artifacts at PATHS with their sources once more, and every file with its digest."""
    _print_artifacts([room.verify(path) for path in paths], as_json)


@click.command("report")
@click.argument("run")
@click.option("--no-latency", is_flag=True, help="Do not measure the artifacts' latency.")
@json_option
def report(run: str, no_latency: bool, as_json: bool) -> None:
    """Write report.html and report.json into a finished RUN."""
    content = room.report(run, measure=not no_latency)
    if as_json:
        print_json(content)
        return
    click.echo(Run.open(run).path / "report.html")


@click.command("demo")
@click.option("--recipe", default="digits_resnet", show_default=True, help="What to train.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe.")
@click.option("--run", "path", metavar="DIR", help="The run directory to make.")
def demo(recipe: str, overrides: tuple[str, ...], path: str | None) -> None:
    """Train on real data, export to every format, verify each artifact, and write the report."""
    click.echo(f"Training {recipe} …", err=True)
    run = training.train(recipe, dict(map(training.parse_override, overrides)), run=path, progress=True)
    click.echo(f"Exporting to {', '.join(formats.names())} …", err=True)
    artifacts = room.export_all(run, formats.names())
    click.echo("Verifying each artifact in its runtime, from its files alone …", err=True)
    for artifact in artifacts:
        room.verify(artifact.path)
    _print_report(run, room.report(run))


def _print_report(run: Run, content: dict[str, Any]) -> None:
    from rich.console import Console

    from export._report import artifact_table

    Console(width=None).print(artifact_table(content["artifacts"], str(run.path)))
    click.echo(f"Report: {run.path / 'report.html'}")


def _print_artifacts(artifacts: Sequence[room.Artifact], as_json: bool) -> None:
    if as_json:
        print_json([{"path": str(a.path), **a.manifest} for a in artifacts])
        return
    rows = [
        (
            a.name,
            f"{a.manifest['bytes'] / 1e3:,.1f} kB",
            f"{a.parity['relative']:.1e}",
            "–" if a.parity["agreement"] is None else f"{a.parity['agreement']:.4f}",
            _figure(a.parity),
            a.path,
        )
        for a in artifacts
    ]
    tagged = {a.parity.get("figure", "accuracy") for a in artifacts}
    agree = "same top-1" if tagged == {"accuracy"} else "agreement"
    print_table(("format", "size", "difference", agree, "accuracy", "path"), rows, right=(1, 2, 3, 4))


def _figure(parity: dict[str, Any]) -> str:
    """Return the figure of an artifact, named if it is no accuracy."""
    name = parity.get("figure", "accuracy")
    told = f"{parity['accuracy']:.4f}"
    return told if name == "accuracy" else f"{NAMES[name]} {told}"
