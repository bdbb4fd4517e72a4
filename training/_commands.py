"""`zoo recipes`, `zoo train` and `zoo evaluate`."""

from __future__ import annotations

import click

import training
from training._recipe import recipes
from training._run import Run
from zoo._console import json_option, print_json, print_table
from zoo._errors import BadOption


@click.command("recipes")
@click.argument("patterns", nargs=-1)
@json_option
def list_recipes(patterns: tuple[str, ...], as_json: bool) -> None:
    """List the recipes whose names match PATTERNS."""
    found = [recipes[name] for name in recipes.names(*patterns)]
    if as_json:
        print_json([recipe.to_json() for recipe in found])
        return
    rows = [(r.name, r.model.name, r.data.name, r.epochs, r.data.batch_size, r.optimizer.name) for r in found]
    print_table(("recipe", "model", "data", "epochs", "batch", "optimizer"), rows, right=(3, 4))


@click.command("train")
@click.argument("recipe", required=False)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value, such as optimizer.learning_rate=0.05.",
)
@click.option("--run", "path", metavar="DIR", help="The run directory to make.")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run.")
@click.option("--quiet", is_flag=True, help="No progress.")
@json_option
def train(
    recipe: str | None, overrides: tuple[str, ...], path: str | None, resume: str | None, quiet: bool, as_json: bool
) -> None:
    """Train RECIPE, or go on with an interrupted run."""
    if bool(recipe) == bool(resume):
        raise BadOption("zoo train needs either a recipe (see: zoo recipes) or --resume RUN.")
    if resume:
        if overrides or path:
            raise BadOption("--resume goes on with the run as it is, so that --set and --run cannot be given with it.")
        run = training.resume(resume, progress=not quiet)
    else:
        run = training.train(recipe, dict(map(training.parse_override, overrides)), run=path, progress=not quiet)
    _print_result(run, as_json)


def _print_result(run: Run, as_json: bool) -> None:
    test = run.result()["test"]
    if as_json:
        print_json({"run": str(run.path), **test})
        return
    click.echo(
        f"{run.path}: accuracy {test['accuracy']:.4f} on the {test['examples']} examples of the {test['split']} split"
    )


@click.command("evaluate")
@click.argument("run")
@click.option("--split", default="test", show_default=True, help="train, validation or test.")
@json_option
def evaluate(run: str, split: str, as_json: bool) -> None:
    """Judge the model of a finished RUN."""
    result = training.evaluate(run, split)
    if as_json:
        print_json({"run": run, "split": split, **result})
        return
    click.echo(f"{split}: accuracy {result['accuracy']:.4f}, loss {result['loss']:.4f}, {result['examples']} examples")
