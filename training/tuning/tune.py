"""Searching a recipe's options with Optuna: each trial is a run, judged on validation data alone.

A study that is killed goes on where it stood: its trials are drawn each from a seed of its own, and the one that was
interrupted from its last checkpoint, so that it ends as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from training.common.stopping import Stopped
from training.data.readers.loading import load_dataset
from training.learning.tasks import TASKS
from training.loop import resume_run, train_new
from training.recipe.recipe import Recipe, resolve
from training.runs.run import Run
from training.tuning.plots import draw_history, draw_importance
from training.tuning.space import Space, parse_spaces
from training.tuning.study import Study
from zoo.common.errors import BadOption, TrainingError
from zoo.common.lazy import np, require

# Trials that are never pruned, for others to be compared with; share of the epochs before any is.
STARTUP, PATIENT = 4, 0.2
PRUNERS = ("median", "halving", "none")
# Told each trial when it is over.
Teller = Callable[[dict[str, Any]], None]


class Pruned(Exception):
    """A trial that is not worth going on with."""


def tune(
    recipe: Recipe | str,
    spaces: Iterable[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    trials: int = 20,
    study: str | os.PathLike[str] | None = None,
    seed: int = 1,
    pruner: str = "median",
    tell: Teller | None = None,
) -> dict[str, Any]:
    """Search for better values of a recipe's options; the test split is not looked at.

    Args:
        recipe: a registered name or a Recipe.
        spaces: what may vary, "optimizer.learning_rate=log:1e-3..1e-1", "model.options.dropout=0..0.5" or
            "data.batch_size=32|64|128".
        overrides: changed values of the recipe by dotted key.
        trials: how many, those of an interrupted study included.
        study: the directory; one that is there is gone on with. `studies/<recipe>/<time>-<4 hex>` if None.
        seed: of the draws.
        pruner: "median" (below the median of the trials before at the same epoch), "halving" or "none".
        tell: called with each trial once it is over.

    Returns:
        study, figure (what was compared), trials (number, state, value, values, epochs, run), best (one of them),
        importance (share of each key).

    Raises:
        BadOption: a space or an option that cannot be.
        RunError: the directory holds something else, or another process is at it.
        TrainingError: no trial came to an end.
        Stopped: SIGTERM or SIGINT came; the study goes on when it is started again.
    """
    require("optuna", extra="tune")
    if pruner not in PRUNERS or trials < 1:
        raise BadOption(f"A study has trials and a pruner {', '.join(PRUNERS)}. Received: {trials=}, {pruner=}")
    recipe = resolve(recipe, (overrides or {}).items())
    found = parse_spaces(spaces, recipe)
    return Search(Study.open(study, recipe, found, seed, pruner), recipe, found).run(trials, tell)


class Search:
    """One process at one study."""

    def __init__(self, study: Study, recipe: Recipe, spaces: list[Space]) -> None:
        self.study, self.recipe, self.spaces = study, recipe, {space.key: space for space in spaces}
        self.figure, self.sign = TASKS[load_dataset(recipe.data).task].best

    def run(self, trials: int, tell: Teller | None) -> dict[str, Any]:
        """Run what is left of so many trials, and draw what came of all."""
        with _quiet(), self.study.storage() as storage:
            self.optuna = self._open(storage)
            for row in map(self._row, self._left(trials)):
                if tell:
                    tell(row)
                gc.collect()
            return self._result()

    def _open(self, storage: Any) -> Any:
        import optuna

        epochs = int(PATIENT * self.recipe.epochs)
        pruners = {
            "median": lambda: optuna.pruners.MedianPruner(STARTUP, n_warmup_steps=epochs),
            "halving": optuna.pruners.SuccessiveHalvingPruner,
            "none": optuna.pruners.NopPruner,
        }
        return optuna.create_study(
            storage=storage,
            study_name=self.recipe.name,
            direction="maximize" if self.sign > 0 else "minimize",
            pruner=pruners[self.study.settings["pruner"]](),
            load_if_exists=True,
        )

    def _left(self, trials: int) -> Iterator[Any]:
        """Yield each trial, trained: first the one that a killed process left, then new ones."""
        import optuna

        distributions = {key: space.distribution() for key, space in self.spaces.items()}
        for frozen in self.optuna.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            yield self._train(optuna.trial.Trial(self.optuna, frozen._trial_id), dict(frozen.intermediate_values))
        for number in range(len(self.optuna.get_trials(deepcopy=False)), trials):
            # A seed for each trial: a study that was interrupted draws what it would have drawn.
            seed = int(np.random.default_rng([self.study.settings["seed"], number]).integers(2**31))
            self.optuna.sampler = optuna.samplers.TPESampler(seed=seed)
            yield self._train(self.optuna.ask(distributions), {})

    def _train(self, trial: Any, reported: dict[int, float]) -> int:
        """Train a trial to its end, one way or another; return its number."""
        from optuna.trial import TrialState

        values = {key: space.value(trial.params[key]) for key, space in self.spaces.items()}
        run = self.study.run(trial.number)
        try:
            if run is not None:
                for row in run.metrics():
                    self._judge(trial, row, reported)
            recipe = resolve(self.recipe, values.items())
            options = {"observe": lambda row: self._judge(trial, row, reported), "split": "validation"}
            run = resume_run(run, **options) if run else train_new(recipe, self.study.run_path(trial.number), **options)
            self.optuna.tell(trial, self._value(run))
        except Pruned:
            self.optuna.tell(trial, state=TrialState.PRUNED)
        except (TrainingError, BadOption) as error:
            trial.set_user_attr("failed", str(error))
            self.optuna.tell(trial, state=TrialState.FAIL)
        except Stopped as error:
            raise Stopped(
                f"Stopped in trial {trial.number}; nothing is lost. Go on with the same command and --study "
                f"{self.study.path}",
                error.code,
            ) from error
        return trial.number

    def _judge(self, trial: Any, row: dict[str, Any], reported: dict[int, float]) -> None:
        """Tell Optuna of an epoch; raise Pruned if it wants no more of them."""
        if row["epoch"] not in reported:
            reported[row["epoch"]] = row[self.figure]
            trial.report(row[self.figure], row["epoch"])
        if row["epoch"] < self.recipe.epochs and trial.should_prune():
            self.study.run(trial.number).prune({"epoch": row["epoch"], self.figure: row[self.figure]})
            raise Pruned

    def _value(self, run: Run) -> float:
        """Return what the weights that are kept reach on the validation split."""
        if run.recipe.keep == "last":
            return run.metrics()[-1][self.figure]
        return run.result()["best"][self.figure]

    def _row(self, number: int) -> dict[str, Any]:
        """Return what is known of a trial."""
        trial = self.optuna.get_trials(deepcopy=False)[number]
        return {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            self.figure: trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step),
            "epochs": trial.last_step or 0,
            "values": {key: space.value(trial.params[key]) for key, space in self.spaces.items()},
            "run": str(self.study.run_path(trial.number)),
            **({"failed": trial.user_attrs["failed"]} if "failed" in trial.user_attrs else {}),
        }

    def _result(self) -> dict[str, Any]:
        """Return what came of the study, and draw it."""
        rows = [self._row(number) for number in range(len(self.optuna.get_trials(deepcopy=False)))]
        finished = [row for row in rows if row["state"] == "complete"]
        if not finished:
            raise TrainingError(f"No trial came to an end. The last says: {rows[-1].get('failed', rows[-1]['state'])}")
        importance = self._importance(len(finished))
        draw_history(self.study, rows, self.figure, self.sign)
        draw_importance(self.study, importance, self.figure)
        return {
            "study": str(self.study.path),
            "figure": self.figure,
            "trials": rows,
            "best": max(finished, key=lambda row: self.sign * row[self.figure]),
            "importance": importance,
        }

    def _importance(self, finished: int) -> dict[str, float]:
        """Return how much of what the trials differ in each key explains; nothing while they are too few or alike."""
        import optuna

        if finished < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.study.settings["seed"])
        with contextlib.suppress(ValueError, RuntimeError):
            return optuna.importance.get_param_importances(self.optuna, evaluator=evaluator)
        return {}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's own log off standard error."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
