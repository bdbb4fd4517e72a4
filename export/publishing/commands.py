"""The command `zoo push`."""

from __future__ import annotations

from typing import Any

import click

import export as api
from zoo.common.console import json_option, print_json
from zoo.common.licenses import noncommercial_option


@click.command("push")
@click.argument("source", metavar="RUN|ARTIFACT")
@click.argument("to", metavar="hf://USER/REPOSITORY")
@click.option("--private", is_flag=True, default=None, help="Make a new repository private.")
@click.option("--revision", default="", metavar="BRANCH", help="Branch to push to, which is created if needed.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of a commit.")
@click.option("--license", "license_name", default="", help="License; that of the weights by default.")
@noncommercial_option
@json_option
def push(source: str, to: str, as_json: bool, **options: Any) -> None:
    """Push a run or artifacts to the Hugging Face hub, with a model card.

    Of a run, the weights and all artifacts. Artifacts come with their samples: up to 1,000 examples of the test split.
    """
    pushed = api.push(source, to, **options)
    if as_json:
        print_json(pushed.to_json())
        return
    click.echo(f"{pushed.address}, license {pushed.license or 'not stated'}, {len(pushed.files)} files: {pushed.url}")
