"""The commands `zoo report` and `zoo pick`."""

from __future__ import annotations

from typing import Any

import click

import export
from export.reporting.pick import PREFERENCES
from zoo.common.console import json_option, print_json, print_table


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--no-latency", is_flag=True, help="Skip latency, cold start, memory and throughput.")
@click.option("--out", metavar="DIR", help="Folder of the report; the first RUN by default.")
@json_option
def report(runs: tuple[str, ...], no_latency: bool, out: str | None, as_json: bool) -> None:
    """Compare artifacts of one or more runs in report.html and report.json.

    RUN is a finished run, or a folder of artifacts.
    """
    written = export.report(*runs, measure=not no_latency, out=out)
    if as_json:
        print_json(written.to_json())
        return
    click.echo(written.html)


@click.command("pick")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--max-drop", type=float, metavar="POINTS", help="Maximum loss of accuracy, in points.")
@click.option("--max-mb", type=float, metavar="MB", help="Maximum size, in megabytes.")
@click.option("--max-ms", type=float, metavar="MS", help="Maximum median latency, in milliseconds.")
@click.option("--max-memory", type=float, metavar="MB", help="Maximum memory in addition to the runtime, in megabytes.")
@click.option("--threads", type=int, metavar="N", help="Threads of the latency; all processors by default.")
@click.option("--runtime", metavar="NAME", help="A format, or the formats of a runtime: tflite, onnx, …")
@click.option("--gzip", is_flag=True, help="Compare sizes after gzip.")
@click.option(
    "--prefer",
    type=click.Choice(list(PREFERENCES)),
    default="speed",
    show_default=True,
    help="What to optimize among the artifacts that fit.",
)
@json_option
def pick(runs: tuple[str, ...], as_json: bool, **limits: Any) -> None:
    """Select the best artifact under accuracy, size and latency limits.

    RUN is a finished run, or a folder of artifacts. Exits with code 2 if no artifact fits.
    """
    selected = export.pick(*runs, **limits)
    if as_json:
        print_json(selected.to_json())
        return
    click.echo(f"{selected.name}  {selected.path}")
    click.echo(f"{selected.reason}\n" if selected.others else selected.reason)
    if selected.others:
        rows = [(name, ", ".join(fails) or "none") for name, fails in selected.others.items()]
        print_table(("others", "exceeded limits"), rows)
