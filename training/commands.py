"""Commands: recipes, new-recipe, lr-find, train, launch, tune, diagnose and evaluate."""

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
from training.data.readers.changes import CHOICES
from training.learning.tasks import describe_metrics
from training.recipe.docstrings import recipe_metadata
from training.recipe.recipe import Recipe, recipes, resolve
from training.recipe.starter import SUFFIX, read_recipe, write_starter
from training.runs.folder import check_free, new_path
from training.runs.run import Run
from zoo.common.console import json_option, print_json, print_table
from zoo.common.errors import BadOption
from zoo.common.files import finite
from zoo.common.licenses import noncommercial_option

# The strategy of processes that train together.
MULTIWORKER = "multiworker"
RESUME_ONLY = "Expected --resume alone. Received: --resume with {}. A run keeps its directory and recipe; leave it out."

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value, such as optimizer.learning_rate=0.05.",
)
changed_data_option = click.option(
    "--changed-data",
    type=click.Choice(CHOICES),
    callback=lambda _context, _option, value: value or "",
    help="If files of the data changed: use those the run knows, also added ones, or refuse.",
)
quiet_option = click.option("--quiet", is_flag=True, help="Do not show progress.")


def _recipe(name: str) -> Recipe | str:
    """Return the recipe of a .toml file, or the name of a registered recipe."""
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
    """List recipes with their data, accuracy, time and hardware.

    PATTERNS are wildcards, such as "digits_*".
    """
    found = [(recipes[name], recipe_metadata(name)) for name in recipes.names(*patterns)]
    if as_json:
        print_json([{**recipe.to_json(), "metadata": metadata.to_json()} for recipe, metadata in found])
        return
    rows = [(r.name, r.model.name, r.data.name, n.shown, _short(n.time), _short(n.hardware)) for r, n in found]
    print_table(("recipe", "model", "data", "accuracy", "time", "hardware"), rows)


def _short(text: str) -> str:
    """Return the first clause of a statement."""
    return text.partition(";")[0].partition(" for ")[0].rstrip(".")


@click.command("lr-find")
@click.argument("recipe")
@set_option
@click.option("--low", default=1e-6, show_default=True, help="First learning rate.")
@click.option("--high", default=10.0, show_default=True, help="Last learning rate.")
@click.option("--steps", default=100, show_default=True, help="Number of steps, a batch each.")
@click.option("--out", default="lr_find.png", show_default=True, metavar="FILE", help="Plot to write.")
@json_option
@noncommercial_option
def lr_find(
    recipe: str, overrides: tuple[str, ...], low: float, high: float, steps: int, out: str, as_json: bool
) -> None:
    """Find a learning rate with a range test."""
    from training.tuning.plots import save_range_test

    result = training.find_learning_rate(_recipe(recipe), _parsed(overrides), low=low, high=high, steps=steps)
    save_range_test(result, Path(out))
    if as_json:
        print_json({**result.to_json(), "drawn": out})
        return
    click.echo(f"{out}: {result.advice}")


@click.command("new-recipe")
@click.argument("name")
@click.option("--from", "base", default="digits_resnet", show_default=True, help="Recipe to copy.")
@click.option("--folder", default=".", metavar="DIR", help="Folder of the file.")
@click.option("--python", "python", is_flag=True, help="Write a Python file for a package, not TOML.")
def new_recipe(name: str, base: str, folder: str, python: bool) -> None:
    """Write a recipe file NAME.toml with every option and its default.

    Train it with: zoo train NAME.toml
    """
    click.echo(write_starter(name, base, Path(folder), python=python))


@click.command("train")
@click.argument("recipe", required=False)
@set_option
@click.option("--run", "path", metavar="DIR", help="Run directory to create.")
@click.option("--resume", metavar="RUN", help="Resume an interrupted run; with --set epochs=N, extend it.")
@changed_data_option
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each epoch and one at the end.")
@noncommercial_option
def train(
    recipe: str | None,
    overrides: tuple[str, ...],
    path: str | None,
    resume: str | None,
    changed_data: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train RECIPE (a name or a .toml file), or resume a run."""
    if bool(recipe) == bool(resume):
        raise BadOption(
            f"Expected either RECIPE (see: zoo recipes) or --resume RUN. Received: {recipe=}, {resume=}. Pass one."
        )
    options = {"progress": not (quiet or as_json), "observe": _print_line if as_json else None}
    with _exit_when_stopped():
        if resume:
            if path:
                raise BadOption(RESUME_ONLY.format("--run"))
            run = training.resume(resume, overrides=_parsed(overrides), changed_data=changed_data, **options)
        else:
            run = training.train(_recipe(recipe), _parsed(overrides), run=path, **options)
    _print_result(run, as_json)


@contextlib.contextmanager
def _exit_when_stopped() -> Iterator[None]:
    """Exit the process at once after a signal stopped the training, without Python's and TensorFlow's cleanup.

    The cleanup would wait for the threads that read data.
    """
    try:
        yield
    except Stopped as stopped:
        click.echo(f"zoo: {stopped}", err=True)
        sys.stdout.flush()
        os._exit(stopped.code)


@click.command("launch")
@click.argument("recipe", required=False)
@click.option("--workers", default=2, show_default=True, help="Number of processes; each computes a shard of a batch.")
@set_option
@click.option("--run", "path", metavar="DIR", help="Run directory to create.")
@click.option("--resume", metavar="RUN", help="Resume an interrupted run.")
@click.option("--retries", default=0, show_default=True, help="Restarts of all processes after one fails.")
@quiet_option
@noncommercial_option
def launch(
    recipe: str | None,
    workers: int,
    overrides: tuple[str, ...],
    path: str | None,
    resume: str | None,
    retries: int,
    quiet: bool,
) -> None:
    """Train RECIPE with several worker processes on this machine."""
    from training.distributed.launch import launch_training

    if bool(recipe) == bool(resume):
        raise BadOption(
            f"Expected either RECIPE (see: zoo recipes) or --resume RUN. Received: {recipe=}, {resume=}. Pass one."
        )
    if resume:
        if overrides or path:
            raise BadOption(RESUME_ONLY.format("--set or --run"))
        launch_training(Run.open(resume), workers=workers, retries=retries, quiet=quiet)
        return
    changes = (*overrides, f"strategy={MULTIWORKER}")
    resolved = resolve(_recipe(recipe), _parsed(changes).items())
    check_free(path)
    place = Path(path) if path else new_path("runs", resolved.name)
    start = (recipe, *(f"--set={change}" for change in changes))
    launch_training(place, start, workers=workers, retries=retries, quiet=quiet)


def _print_result(run: Run, as_json: bool) -> None:
    """Print the metrics of a finished run; of several workers, only the chief does."""
    if not run.writes:
        return
    result = run.result()
    test = result["test"]
    if as_json:
        _print_line({"run": str(run.path), **test})
        return
    metrics = describe_metrics(result.get("task", "classify"), test)
    click.echo(f"{run.path}: {metrics} on the {test['examples']} examples of the {test['split']} split")


@click.command("tune")
@click.argument("recipe")
@click.option("--space", "spaces", multiple=True, metavar="KEY=VALUES", help="LOW..HIGH, log:LOW..HIGH or A|B|C.")
@click.option("--trials", default=20, show_default=True, help="Number of trials, with those of an interrupted study.")
@click.option("--study", metavar="DIR", help="Study directory; an existing study is resumed.")
@set_option
@click.option("--seed", default=1, show_default=True, help="Seed of the sampler.")
@click.option("--pruner", default="median", show_default=True, help="Pruner: median, halving or none.")
@quiet_option
@json_option
@noncommercial_option
def tune(recipe: str, overrides: tuple[str, ...], quiet: bool, as_json: bool, **options: Any) -> None:
    """Search for better values of a recipe's options.

    Trials are compared on the validation split.
    """
    observe = None if quiet or as_json else _print_trial
    result = training.tune(_recipe(recipe), overrides=_parsed(overrides), observe=observe, **options)
    if as_json:
        print_json(result.to_json())
        return
    best = result.best
    click.echo(f"{result.study}: {result.metric} {best.value:.4f} in trial {best.number}, {best.run}")
    if result.importance:
        importance = sorted(result.importance.items(), key=lambda item: -item[1])
        click.echo("Importance: " + ", ".join(f"{key} {fraction:.2f}" for key, fraction in importance))
    click.echo(" ".join(f"--set {shlex.quote(f'{k}={_formatted(v)}')}" for k, v in best.values.items()))


def _formatted(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _print_trial(trial: training.Trial) -> None:
    """Print a finished trial on standard error."""
    value = "" if trial.value is None else f"  {trial.metric} {trial.value:.4f} after {trial.epochs} epochs"
    values = "  ".join(f"{key}={_formatted(value)}" for key, value in trial.values.items())
    click.echo(f"trial {trial.number}  {trial.state}{value}  {values}", err=True)


@click.command("diagnose")
@click.argument("run")
@json_option
def diagnose(run: str, as_json: bool) -> None:
    """Diagnose a run and suggest what to change."""
    diagnosis = training.diagnose(run)
    if as_json:
        print_json(finite(diagnosis.to_json()))
        return
    if not diagnosis.findings:
        click.echo(f"No problems found in {diagnosis.epochs} epochs and {diagnosis.measurements} measured steps.")
    for finding in diagnosis.findings:
        click.echo(f"{finding.what}.\n  Try: {finding.advice}.")


@click.command("evaluate")
@click.argument("run")
@click.option("--split", default="test", show_default=True, help="train, validation or test.")
@changed_data_option
@json_option
def evaluate(run: str, split: str, changed_data: str, as_json: bool) -> None:
    """Evaluate a trained run on its validation or test split."""
    result = training.evaluate(run, split, changed_data=changed_data).to_json()
    if as_json:
        print_json({"run": run, **result})
        return
    metrics = describe_metrics(Run.open(run).result().get("task", "classify"), result)
    click.echo(f"{split}: {metrics}, loss {result['loss']:.4f}, {result['examples']} examples")
