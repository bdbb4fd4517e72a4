"""`zoo recipes`, `zoo new-recipe`, `zoo lr-find`, `zoo train`, `zoo tune`, `zoo diagnose` and `zoo evaluate`."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import training
from training.common.stopping import Stopped
from training.learning.tasks import describe_metrics
from training.recipe.docstrings import note
from training.recipe.recipe import Recipe, recipes, resolve
from training.recipe.starter import SUFFIX, read_recipe, write_starter
from training.runs.run import Run, check_free, new_path
from zoo.common.console import json_option, print_json, print_table
from zoo.common.errors import BadOption
from zoo.common.files import finite

# The strategy of processes that train together.
MULTIWORKER = "multiworker"

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value, such as optimizer.learning_rate=0.05.",
)
quiet_option = click.option("--quiet", is_flag=True, help="No progress.")


def _recipe(name: str) -> Recipe | str:
    """Return the recipe of a file, or the name of a registered one."""
    return read_recipe(Path(name)) if name.endswith(SUFFIX) else name


def _parsed(overrides: tuple[str, ...]) -> dict[str, Any]:
    return dict(map(training.parse_override, overrides))


def _print_line(row: dict[str, Any]) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(finite(row), allow_nan=False))


@click.command("recipes")
@click.argument("patterns", nargs=-1)
@json_option
def list_recipes(patterns: tuple[str, ...], as_json: bool) -> None:
    """List the recipes whose names match PATTERNS: what they train, how long that takes and what it reaches."""
    found = [(recipes[name], note(name)) for name in recipes.names(*patterns)]
    if as_json:
        print_json([{**recipe.to_json(), "stated": stated.to_json()} for recipe, stated in found])
        return
    rows = [(r.name, r.model.name, r.data.name, n.shown, _short(n.time), _short(n.hardware)) for r, n in found]
    print_table(("recipe", "model", "data", "accuracy", "time", "hardware"), rows)


def _short(text: str) -> str:
    """Return the first clause of a statement."""
    return text.partition(";")[0].partition(" for ")[0].rstrip(".")


@click.command("lr-find")
@click.argument("recipe")
@set_option
@click.option("--low", default=1e-6, show_default=True, help="The first learning rate.")
@click.option("--high", default=10.0, show_default=True, help="The last learning rate.")
@click.option("--steps", default=100, show_default=True, help="How many, a batch each.")
@click.option("--out", default="lr_find.png", show_default=True, metavar="FILE", help="Where the curve is drawn.")
@json_option
def lr_find(
    recipe: str, overrides: tuple[str, ...], low: float, high: float, steps: int, out: str, as_json: bool
) -> None:
    """Propose a learning rate for RECIPE: raise it step by step, draw the loss, and take where it falls fastest."""
    from training.tuning.lr_finder import find_rate

    found = find_rate(resolve(_recipe(recipe), _parsed(overrides).items()), low=low, high=high, steps=steps)
    found.draw(Path(out))
    if as_json:
        print_json({"learning_rate": found.rate, "drawn": out, "rates": found.rates, "smoothed": found.smoothed})
        return
    click.echo(f"{out}: {found.advice}")


@click.command("new-recipe")
@click.argument("name")
@click.option("--from", "base", default="digits_resnet", show_default=True, help="The recipe to begin with.")
@click.option("--folder", default=".", metavar="DIR", help="Where the file goes.")
@click.option("--python", "python", is_flag=True, help="A Python file for a package, instead of TOML.")
def new_recipe(name: str, base: str, folder: str, python: bool) -> None:
    """Write a file NAME.toml to start a recipe of one's own from; zoo train NAME.toml trains it."""
    click.echo(write_starter(name, base, Path(folder), python=python))


@click.command("train")
@click.argument("recipe", required=False)
@set_option
@click.option("--run", "path", metavar="DIR", help="The run directory to make.")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON an epoch and one in the end, for machines.")
def train(
    recipe: str | None, overrides: tuple[str, ...], path: str | None, resume: str | None, quiet: bool, as_json: bool
) -> None:
    """Train RECIPE, a name or a .toml file, or go on with an interrupted run."""
    if bool(recipe) == bool(resume):
        raise BadOption("zoo train needs either a recipe (see: zoo recipes) or --resume RUN.")
    options = {"progress": not (quiet or as_json), "observe": _print_line if as_json else None}
    with _ended_at_once():
        if resume:
            if overrides or path:
                raise BadOption(
                    "--resume goes on with the run as it is, so that --set and --run cannot be given with it."
                )
            run = training.resume(resume, **options)
        else:
            run = training.train(_recipe(recipe), _parsed(overrides), run=path, **options)
    _print_result(run, as_json)


@contextlib.contextmanager
def _ended_at_once() -> Iterator[None]:
    """End the process when training was stopped by a signal, without what Python and TensorFlow do at their end.

    They would wait for the threads that read data, and those for whatever keeps them.
    """
    try:
        yield
    except Stopped as stopped:
        click.echo(f"zoo: {stopped}", err=True)
        sys.stdout.flush()
        os._exit(stopped.code)


@click.command("launch")
@click.argument("recipe", required=False)
@click.option("--workers", default=2, show_default=True, help="How many processes, each on its share of a batch.")
@set_option
@click.option("--run", "path", metavar="DIR", help="The run directory to make.")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run.")
@click.option("--retries", default=0, show_default=True, help="How often all are started again when one fails.")
@quiet_option
def launch(
    recipe: str | None,
    workers: int,
    overrides: tuple[str, ...],
    path: str | None,
    resume: str | None,
    retries: int,
    quiet: bool,
) -> None:
    """Train RECIPE, or go on with a run, by several processes of this machine that share each batch."""
    from training.launch import launch_training

    if bool(recipe) == bool(resume):
        raise BadOption("zoo launch needs either a recipe (see: zoo recipes) or --resume RUN.")
    if resume:
        if overrides or path:
            raise BadOption("--resume goes on with the run as it is, so that --set and --run cannot be given with it.")
        launch_training(Run.open(resume), workers=workers, retries=retries, quiet=quiet)
        return
    changes = (*overrides, f"strategy={MULTIWORKER}")
    resolved = resolve(_recipe(recipe), _parsed(changes).items())
    check_free(path)
    place = Path(path) if path else new_path("runs", resolved.name)
    start = (recipe, *(f"--set={change}" for change in changes))
    launch_training(place, start, workers=workers, retries=retries, quiet=quiet)


def _print_result(run: Run, as_json: bool) -> None:
    """Print how good a finished run is; of several workers, one does."""
    if not run.writes:
        return
    result = run.result()
    test = result["test"]
    if as_json:
        _print_line({"run": str(run.path), **test})
        return
    told = describe_metrics(result.get("task", "classify"), test)
    click.echo(f"{run.path}: {told} on the {test['examples']} examples of the {test['split']} split")


@click.command("tune")
@click.argument("recipe")
@click.option("--space", "spaces", multiple=True, metavar="KEY=VALUES", help="LOW..HIGH, log:LOW..HIGH or A|B|C.")
@click.option("--trials", default=20, show_default=True, help="How many, those of an interrupted study included.")
@click.option("--study", metavar="DIR", help="The study's directory; one that is there is gone on with.")
@set_option
@click.option("--seed", default=1, show_default=True, help="Of the draws.")
@click.option("--pruner", default="median", show_default=True, help="Who ends bad trials: median, halving or none.")
@quiet_option
@json_option
def tune(recipe: str, overrides: tuple[str, ...], quiet: bool, as_json: bool, **options: Any) -> None:
    """Search for better values of RECIPE's options; only validation data is looked at."""
    tell = None if quiet or as_json else _print_trial
    result = training.tune(_recipe(recipe), overrides=_parsed(overrides), tell=tell, **options)
    if as_json:
        print_json(result)
        return
    best, figure = result["best"], result["figure"]
    click.echo(f"{result['study']}: {figure} {best[figure]:.4f} in trial {best['trial']}, {best['run']}")
    if result["importance"]:
        shares = sorted(result["importance"].items(), key=lambda item: -item[1])
        click.echo("What mattered: " + ", ".join(f"{key} {share:.2f}" for key, share in shares))
    click.echo(" ".join(f"--set {shlex.quote(f'{k}={_written(v)}')}" for k, v in best["values"].items()))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _print_trial(row: dict[str, Any]) -> None:
    """Print a trial that is over on standard error."""
    figure = next(key for key in row if key not in ("trial", "state"))
    reached = "" if row[figure] is None else f"  {figure} {row[figure]:.4f} after {row['epochs']} epochs"
    values = "  ".join(f"{key}={_written(value)}" for key, value in row["values"].items())
    click.echo(f"trial {row['trial']}  {row['state']}{reached}  {values}", err=True)


@click.command("health")
@click.argument("run")
@json_option
def health(run: str, as_json: bool) -> None:
    """Say what is wrong with a RUN, finished or not, and what to try."""
    content = training.diagnose(run)
    if as_json:
        print_json(finite(content))
        return
    seen = f"{content['epochs']} epochs and {content['measurements']} measured steps"
    if not content["findings"]:
        click.echo(f"Nothing is wrong, as far as {seen} tell.")
    for finding in content["findings"]:
        click.echo(f"{finding['what']}.\n  Try: {finding['advice']}.")


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
    told = describe_metrics(Run.open(run).result().get("task", "classify"), result)
    click.echo(f"{split}: {told}, loss {result['loss']:.4f}, {result['examples']} examples")
