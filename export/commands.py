"""`zoo formats`, `zoo targets`, `zoo export`, `zoo verify` and `zoo demo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import click

import export as room
import training
import zoo
from export.core.compression import compressions
from export.core.format import Format, formats, parse_format
from export.core.options import choices
from export.source.job import is_registry_name
from export.targets import TARGETS, every_format, formats_for
from training.learning.tasks import NAMES
from training.runs.run import Run
from zoo.common.console import json_option, print_json, print_table
from zoo.common.errors import BadOption


@click.command("formats")
@json_option
def list_formats(as_json: bool) -> None:
    """List the formats to export to."""
    found = [formats[name] for name in formats.names()]
    if as_json:
        print_json([_listed(fmt) for fmt in found])
        return
    rows = [(f.name, f.summary, ", ".join(choice.text for choice in choices(f.options))) for f in found]
    print_table(("format", "what it is", "options and their defaults"), rows)


def _listed(fmt: Format) -> dict[str, Any]:
    """Return a format as JSON-safe values."""
    options = [dataclasses.asdict(choice) for choice in choices(fmt.options)]
    return {"name": fmt.name, "file": fmt.file, "summary": fmt.summary, "options": options}


@click.command("compressions")
@json_option
def list_compressions(as_json: bool) -> None:
    """List what makes networks smaller, for `zoo export --compress`."""
    found = [compressions[name] for name in compressions.names()]
    if as_json:
        print_json([{"name": c.name, "summary": c.summary} for c in found])
        return
    print_table(("compression", "how it is written, and what it does"), [(c.name, c.summary) for c in found])


@click.command("targets")
@json_option
def list_targets(as_json: bool) -> None:
    """List the named sets of formats, for `zoo export --for`."""
    if as_json:
        print_json([{"name": name, **dataclasses.asdict(target)} for name, target in TARGETS.items()])
        return
    rows = [(name, ", ".join(target.formats), target.why) for name, target in TARGETS.items()]
    print_table(("target", "formats", "why"), rows)


@click.command("export")
@click.argument("run", metavar="RUN|MODEL")
@click.option(
    "--format",
    "chosen",
    multiple=True,
    metavar="FORMAT...",
    help='One or more formats, with options: "tflite_int8:batch=4,input=uint8"; see: zoo formats.',
)
@click.option("--for", "target", type=click.Choice(list(TARGETS)), help="The formats of a target; see: zoo targets.")
@click.option(
    "--compress", default="", metavar="CHAIN", help='Make it smaller first: "prune:0.8 | qat"; see: zoo compressions.'
)
@click.option("--all", "every", is_flag=True, help="Every format.")
@click.option(
    "--max-drop",
    type=float,
    metavar="POINTS",
    help="Accuracy that a format which is not exact may lose.",
)
@click.option("--weights", metavar="NAME|PATH", help="Of a MODEL: imagenet, a path, or random for a trial.")
@click.option("--calibration", metavar="PATH", help="Of a MODEL: a folder of images, or a .npy or .csv of examples.")
@click.option("--classes", type=int, help="Of a MODEL: how many classes it has.")
@click.option("--set", "options", multiple=True, metavar="OPTION=VALUE", help="Of a MODEL: an option of its family.")
@click.option("--out", metavar="DIR", help="Of a MODEL: where its artifacts go, exports/MODEL by default.")
@click.argument("more", nargs=-1, metavar="")
@json_option
def export(run: str, chosen: tuple[str, ...], more: tuple[str, ...], **others: Any) -> None:
    """Export a finished RUN, or a MODEL of the registry; each artifact is compared with its source in its runtime."""
    # Look the names up before anything heavy happens.
    wanted = [parse_format(name, others["max_drop"]).text for name in (*chosen, *more)]
    is_model = is_registry_name(run)
    if others["every"] or others["target"]:
        subject = zoo.spec(run) if is_model else Run.open(run)
        wanted += _named(*every_format(subject)) if others["every"] else []
        wanted += _named(*formats_for(subject, others["target"])) if others["target"] else []
    if not wanted:
        raise BadOption(
            f"zoo export needs --format with one or more of {', '.join(formats.names())}, --for with one of "
            f"{', '.join(TARGETS)}, or --all."
        )
    options = dict(map(training.parse_override, others["options"]))
    options |= {} if others["classes"] is None else {"classes": others["classes"]}
    arguments = {key: others[key] for key in ("compress", "weights", "calibration", "out", "max_drop")}
    artifacts = room.convert(run, wanted, **arguments, options=options)
    _print_artifacts(artifacts, others["as_json"])


def _named(found: list[str], left: dict[str, str]) -> list[str]:
    """Return what is found, and name on standard error what is left out."""
    for name, reason in left.items():
        click.echo(f"zoo: {name} is left out: {reason}", err=True)
    return found


@click.command("verify")
@click.argument("paths", nargs=-1, required=True)
@json_option
def verify(paths: tuple[str, ...], as_json: bool) -> None:
    """Compare the artifacts at PATHS with their sources once more, and every file with its digest."""
    _print_artifacts([room.verify(path) for path in paths], as_json)


@click.command("demo")
@click.option("--recipe", default="digits_resnet", show_default=True, help="What to train.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe.")
@click.option("--run", "path", metavar="DIR", help="The run directory to make.")
def demo(recipe: str, overrides: tuple[str, ...], path: str | None) -> None:
    """Train on real data, export to every format, verify each artifact, and write the report."""
    click.echo(f"Training {recipe} …", err=True)
    run = training.train(recipe, dict(map(training.parse_override, overrides)), run=path, progress=True)
    names = _named(*every_format(run))
    click.echo(f"Exporting to {', '.join(names)} …", err=True)
    artifacts = room.convert(run, names)
    click.echo("Verifying each artifact in its runtime, from its files alone …", err=True)
    for artifact in artifacts:
        room.verify(artifact.path)
    _print_report(run, room.report(run))


def _print_report(run: Run, content: dict[str, Any]) -> None:
    from rich.console import Console

    from export.reporting.tables import artifact_table

    Console(width=None).print(artifact_table(content["artifacts"], str(run.path)))
    click.echo(f"Report: {run.path / 'report.html'}")


def _print_artifacts(artifacts: Sequence[room.Artifact], as_json: bool) -> None:
    if as_json:
        print_json([artifact.to_json() for artifact in artifacts])
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
    tagged = {a.parity.get("metric", "accuracy") for a in artifacts}
    agree = "same top-1" if tagged == {"accuracy"} else "agreement"
    print_table(("format", "size", "difference", agree, "accuracy", "path"), rows, right=(1, 2, 3, 4))


def _figure(parity: dict[str, Any]) -> str:
    """Return the figure of an artifact, named if it is no accuracy."""
    name = parity.get("metric", "accuracy")
    told = "–" if parity["accuracy"] is None else f"{parity['accuracy']:.4f}"
    return told if name == "accuracy" else f"{NAMES[name]} {told}"
