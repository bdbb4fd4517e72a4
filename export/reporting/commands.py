"""`zoo report` and `zoo pick`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import export as room
from export.reporting.pick import PREFERENCES
from zoo.common.console import json_option, print_json, print_table


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--no-latency", is_flag=True, help="Measure nothing: no latency, cold start, memory or throughput.")
@click.option("--out", metavar="DIR", help="Where to write it; into the first RUN by default.")
@json_option
def report(runs: tuple[str, ...], no_latency: bool, out: str | None, as_json: bool) -> None:
    """Compare the artifacts of finished RUNs, or of folders of artifacts, in report.html and report.json."""
    content = room.report(*runs, measure=not no_latency, out=out)
    if as_json:
        print_json(content)
        return
    click.echo(Path(out or content["run"]) / "report.html")


@click.command("pick")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--max-drop", type=float, metavar="POINTS", help="Points of accuracy that may be lost.")
@click.option("--max-mb", type=float, metavar="MB", help="Megabytes it may have.")
@click.option("--max-ms", type=float, metavar="MS", help="Milliseconds that half of all calls may take.")
@click.option("--max-memory", type=float, metavar="MB", help="Megabytes of memory it may take beside the runtime.")
@click.option("--threads", type=int, metavar="N", help="Threads for the latency; all processors by default.")
@click.option("--runtime", metavar="NAME", help="Only one format, or those of a runtime: tflite, onnx, …")
@click.option("--gzip", is_flag=True, help="Count bytes compressed.")
@click.option(
    "--prefer",
    type=click.Choice(list(PREFERENCES)),
    default="speed",
    show_default=True,
    help="Of what fits, the best in this.",
)
@json_option
def pick(runs: tuple[str, ...], as_json: bool, **limits: Any) -> None:
    """Name the artifact of RUNs to ship, and what the others fail on; exit code 2 if none fits."""
    found = room.pick(*runs, **limits)
    if as_json:
        told = {"artifact": found.name, "path": str(found.path), "why": found.why, "row": found.row}
        print_json({**told, "others": found.others})
        return
    click.echo(f"{found.name}  {found.path}")
    click.echo(f"{found.why}\n" if found.others else found.why)
    if found.others:
        print_table(("others", "fail on"), [(n, ", ".join(fails) or "fits too") for n, fails in found.others.items()])
