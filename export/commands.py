"""The commands `zoo formats`, `compressions`, `targets`, `export`, `verify` and `demo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import click

import export as api
import training
import zoo
from export.conversion.generated_samples import MEANING
from export.conversion.opening import is_registry_name
from export.core.compression import compressions
from export.core.format import Format, formats, parse_format
from export.core.options import choices
from export.source.keras_model.job import is_keras_file
from export.targets import TARGETS, every_format, formats_for
from training.data.readers.changes import KNOWN, REFUSE
from training.learning.tasks import NAMES
from training.runs.run import Run
from zoo.common.console import json_option, print_json, print_table
from zoo.common.errors import BadOption, ZooError
from zoo.common.licenses import noncommercial_option
from zoo.weights.repositories import locate

# Options of `zoo export` that `export.convert` takes as they are.
PASSED = ("compress", "weights", "calibration", "labels", "out", "max_drop", "changed_data", "private")
# Artifacts are made from the files that a run knows.
changed_data_option = click.option(
    "--changed-data",
    type=click.Choice((KNOWN, REFUSE)),
    callback=lambda _context, _option, value: value or "",
    help="Of a RUN: if files of its data changed, use those it knows, or refuse.",
)


@click.command("formats")
@json_option
def list_formats(as_json: bool) -> None:
    """List export formats and their options."""
    found = [formats[name] for name in formats.names()]
    if as_json:
        print_json([_format_to_json(fmt) for fmt in found])
        return
    rows = [(f.name, f.summary, ", ".join(choice.text for choice in choices(f.options))) for f in found]
    print_table(("format", "description", "options and defaults"), rows)


def _format_to_json(fmt: Format) -> dict[str, Any]:
    """Return a format as JSON-safe values."""
    options = [dataclasses.asdict(choice) for choice in choices(fmt.options)]
    return {"name": fmt.name, "file": fmt.file, "summary": fmt.summary, "options": options}


@click.command("compressions")
@json_option
def list_compressions(as_json: bool) -> None:
    """List compression methods (pruning, clustering, QAT, …).

    Combine them in `zoo export --compress "prune:0.8 | qat"`.
    """
    found = [compressions[name] for name in compressions.names()]
    if as_json:
        print_json([{"name": c.name, "summary": c.summary} for c in found])
        return
    print_table(("compression", "usage and description"), [(c.name, c.summary) for c in found])


@click.command("targets")
@json_option
def list_targets(as_json: bool) -> None:
    """List deployment targets and their formats, for `zoo export`."""
    if as_json:
        print_json([{"name": name, **dataclasses.asdict(target)} for name, target in TARGETS.items()])
        return
    rows = [(name, ", ".join(target.formats), target.why) for name, target in TARGETS.items()]
    print_table(("target", "formats", "reason"), rows)


@click.command("export")
@click.argument("positional", nargs=-1, required=True, metavar="RUN|MODEL|FILE")
@click.option(
    "--format",
    "chosen",
    multiple=True,
    metavar="FORMAT...",
    help='One or more formats, with options: "tflite_int8:batch=4,input=uint8"; see: zoo formats.',
)
@click.option("--for", "target", type=click.Choice(list(TARGETS)), help="The formats of a target; see: zoo targets.")
@click.option(
    "--compress", default="", metavar="PIPELINE", help='Compress first: "prune:0.8 | qat"; see: zoo compressions.'
)
@click.option("--all", "every", is_flag=True, help="Every format that the model supports.")
@click.option("--max-drop", type=float, metavar="POINTS", help="Accuracy that a quantized format may lose, in points.")
@click.option("--auto", is_flag=True, help="If a quantized artifact is refused, try what may help until one passes.")
@click.option("--weights", metavar="NAME|PATH", help="Of a MODEL: imagenet, a path, or random for a trial.")
@click.option(
    "--calibration", metavar="PATH", help="Of a MODEL or FILE: a folder of images, a .npy, .npz, .csv or .txt file."
)
@click.option("--labels", metavar="PATH", help="Of a FILE: the names of its classes, one a line.")
@click.option("--custom", multiple=True, metavar="MODULE:CLASS", help="Of a FILE: a layer of your own code, trusted.")
@click.option("--classes", type=int, help="Of a MODEL: number of classes.")
@click.option(
    "--preprocessing", metavar="PRESET|JSON", help="Of a MODEL: what its weights expect, if their file does not say it."
)
@click.option("--set", "options", multiple=True, metavar="OPTION=VALUE", help="Of a MODEL or FILE: an option.")
@click.option("--out", metavar="DIR", help="Of a MODEL or FILE: folder of the artifacts; exports/NAME by default.")
@click.option("--private", is_flag=True, help="Leave the examples of the data out; verify then proves less.")
@changed_data_option
@noncommercial_option
@json_option
def export(positional: tuple[str, ...], chosen: tuple[str, ...], **others: Any) -> None:
    """Export a trained run, a registry model or a .keras FILE, and verify each artifact.

    `--format` takes several formats: zoo export RUN --format tflite onnx. Verification runs the artifact in its runtime
    and compares its outputs with those of the source model.
    """
    source, more = _split_positional(positional)
    # Checks the names before any expensive import.
    names = [parse_format(name, others["max_drop"]).text for name in (*chosen, *more)]
    if others["every"] or others["target"]:
        model = _described(source)
        names += _supported(*every_format(model)) if others["every"] else []
        names += _supported(*formats_for(model, others["target"])) if others["target"] else []
    if not names:
        raise BadOption(
            f"Expected --format with one or more of {', '.join(formats.names())}, --for with one of "
            f"{', '.join(TARGETS)}, or --all. Received: none"
        )
    options = dict(map(training.parse_override, others["options"]))
    options |= {key: others[key] for key in ("classes", "preprocessing") if others[key] is not None}
    options |= {"custom": list(others["custom"])} if others["custom"] else {}
    arguments = {key: others[key] for key in PASSED}
    auto = _print_attempt if others["auto"] else False
    try:
        artifacts = api.convert(source, names, **arguments, options=options, auto=auto)
    except ZooError as error:
        if error.completed:
            _print_artifacts(error.completed, others["as_json"])
        raise
    _print_artifacts(artifacts, others["as_json"])


def _described(source: str) -> Run | zoo.ModelSpec | None:
    """Return what is known of a source without opening its model; None for a Keras file."""
    if is_keras_file(source):
        return None
    return zoo.spec(locate(source, None)[0]) if is_registry_name(source) else Run.open(source)


def _print_attempt(line: str) -> None:
    click.echo(f"zoo: {line}", err=True)


def _split_positional(positional: Sequence[str]) -> tuple[str, list[str]]:
    """Return RUN or MODEL, and the further formats of `--format A B`: RUN may come before or after them."""
    others = [i for i, text in enumerate(positional) if text.partition(":")[0] not in formats]
    place = others[0] if others else 0
    return positional[place], [*positional[:place], *positional[place + 1 :]]


def _supported(names: list[str], reasons: dict[str, str]) -> list[str]:
    """Return the supported formats, and print the reasons against the others on standard error."""
    for name, reason in reasons.items():
        click.echo(f"zoo: {name} is skipped: {reason}", err=True)
    return names


@click.command("verify")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@changed_data_option
@json_option
def verify(paths: tuple[str, ...], changed_data: str, as_json: bool) -> None:
    """Verify artifacts again: checksums, and outputs against the source model.

    PATH is an artifact or its folder.
    """
    _print_artifacts([api.verify(path, changed_data=changed_data) for path in paths], as_json)


@click.command("demo")
@click.option("--recipe", default="digits_resnet", show_default=True, help="The recipe to train.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe.")
@click.option("--run", "path", metavar="DIR", help="The new run directory.")
def demo(recipe: str, overrides: tuple[str, ...], path: str | None) -> None:
    """Train on real data, export to every format, verify, and write a report."""
    click.echo(f"Training {training.get_recipe(recipe).name} …", err=True)
    run = training.train(recipe, dict(map(training.parse_override, overrides)), run=path, progress=True)
    names = _supported(*every_format(run))
    click.echo(f"Exporting to {', '.join(names)} …", err=True)
    artifacts = api.convert(run, names)
    click.echo("Verifying each artifact in its runtime, from its files alone …", err=True)
    for artifact in artifacts:
        api.verify(artifact.path)
    _print_report(run, api.report(run))


def _print_report(run: Run, report: Any) -> None:
    from rich.console import Console

    from export.reporting.tables import artifact_table

    Console(width=None).print(artifact_table(report.artifacts, str(run.path)))
    click.echo(f"Report: {report.html}")


def _print_artifacts(artifacts: Sequence[api.Artifact], as_json: bool) -> None:
    if as_json:
        print_json([artifact.to_json() for artifact in artifacts])
        return
    rows = [
        (
            a.name,
            f"{a.manifest['bytes'] / 1e3:,.1f} kB",
            f"{a.parity['relative']:.1e}",
            "–" if a.parity["agreement"] is None else f"{a.parity['agreement']:.4f}",
            _metric_text(a.parity),
            a.path,
        )
        for a in artifacts
    ]
    metrics = {a.parity["metric"] for a in artifacts}
    agreement = "same top-1" if metrics == {"accuracy"} else "agreement"
    print_table(("format", "size", "difference", agreement, "accuracy", "path"), rows, right=(1, 2, 3, 4))
    for note in dict.fromkeys(note for artifact in artifacts for note in _notes(artifact)):
        click.echo(note)


def _notes(artifact: api.Artifact) -> Iterator[str]:
    """Yield what the table leaves out: a license, examples that were not compared or are too few, and precisions."""
    source, parity = artifact.manifest["source"], artifact.parity
    if source.get("noncommercial_accepted"):
        yield f"The weights have the license {source['weights_license']}, and are not for commercial use."
    if artifact.manifest.get("private"):
        yield MEANING
        return
    if source.get("examples", 0) > parity["n"]:
        yield f"Compared on {parity['n']:,} of {source['examples']:,} {source['split']} examples."
    if parity.get("enough") is False:
        interval = parity["drop_interval"] and [100 * bound for bound in parity["drop_interval"]]
        loss = f": the loss is between {interval[0]:.1f} and {interval[1]:.1f} points" if interval else ""
        yield f"{artifact.name}: {parity['n']:,} examples are too few to measure a loss of its tolerance{loss}."
    trained = source.get("metrics", {}).get(parity["metric"])
    if None not in (trained, parity["source_accuracy"]) and source["precision"] != "float32":
        name = NAMES.get(parity["metric"], parity["metric"])
        yield (
            f"Trained in {source['precision']} with {name} {trained:.4f} on {source['examples']:,} {source['split']} "
            f"examples; exported in float32, with {name} {parity['source_accuracy']:.4f} on {parity['n']:,}."
        )


def _metric_text(parity: dict[str, Any]) -> str:
    """Return the metric of an artifact, with its name unless it is the accuracy."""
    value = "–" if parity["accuracy"] is None else f"{parity['accuracy']:.4f}"
    return value if parity["metric"] == "accuracy" else f"{NAMES.get(parity['metric'], parity['metric'])} {value}"
