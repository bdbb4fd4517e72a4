"""Search a recipe's options with Optuna: each trial is a run, compared on the validation split.

An interrupted study resumes with the same result: each trial is sampled with its own seed, and an interrupted trial
resumes from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from training.common.compat import resume_trial
from training.common.stopping import Stopped
from training.data.readers.loading import load_dataset
from training.fit.loop import resume_run, train_new
from training.learning.tasks import TASKS
from training.recipe.recipe import Recipe, resolve
from training.runs.run import Run
from training.tuning.plots import plot_history, plot_importance
from training.tuning.results import Trial, TuneResult
from training.tuning.space import Space, parse_spaces
from training.tuning.study import Study
from zoo.common.budgets import MOST_TURNS
from zoo.common.errors import BadOption, TrainingError
from zoo.common.lazy import np, require

# Trials that are never pruned, as references for others; fraction of the epochs before a trial can be pruned.
STARTUP, WARMUP = 4, 0.2
PRUNERS = ("median", "halving", "none")
# Receives each finished trial.
TrialObserver = Callable[[Trial], None]


class Pruned(Exception):
    """A trial that is stopped early."""


def run_study(
    recipe: Recipe,
    spaces: Iterable[str],
    *,
    trials: int,
    study: str | os.PathLike[str] | None,
    seed: int,
    pruner: str,
    observe: TrialObserver | None,
) -> TuneResult:
    """Run or resume a study; see `training.tune`. The test split is not used.

    Raises:
        BadOption: a space or an option is invalid.
        RunError: the directory has other content, or another process uses it.
        TrainingError: no trial was completed.
        Stopped: SIGTERM or SIGINT requested a stop; the same call resumes the study.
    """
    require("optuna", extra="tune")
    if pruner not in PRUNERS or not 1 <= trials <= MOST_TURNS or not 0 <= seed < 2**31:
        raise BadOption(
            f"trials must be from 1 to {MOST_TURNS:,}, seed from 0 to {2**31 - 1} and pruner one of "
            f"{', '.join(PRUNERS)}. Received: {trials=}, {seed=}, {pruner=}. Change them."
        )
    parsed = parse_spaces(spaces, recipe)
    return Search(Study.open(study, recipe, parsed, seed, pruner), recipe, parsed).run(trials, observe)


class Search:
    """One process that runs one study."""

    def __init__(self, study: Study, recipe: Recipe, spaces: list[Space]) -> None:
        self.study, self.recipe, self.spaces = study, recipe, {space.key: space for space in spaces}
        self.metric, self.sign = TASKS[load_dataset(recipe.data).task].best

    def run(self, trials: int, observe: TrialObserver | None) -> TuneResult:
        """Run the remaining trials, and plot the results of all."""
        with _quiet(), self.study.storage() as storage:
            self.optuna = self._open(storage)
            for trial in map(self._trial, self._remaining(trials)):
                if observe:
                    observe(trial)
                gc.collect()
            return self._result()

    def _open(self, storage: Any) -> Any:
        import optuna

        epochs = int(WARMUP * self.recipe.epochs)
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

    def _remaining(self, trials: int) -> Iterator[Any]:
        """Train and yield each trial: first one that a killed process left, then new ones."""
        import optuna

        distributions = {key: space.distribution() for key, space in self.spaces.items()}
        for frozen in self.optuna.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            yield self._train(resume_trial(self.optuna, frozen), dict(frozen.intermediate_values))
        for number in range(len(self.optuna.get_trials(deepcopy=False)), trials):
            # With a seed for each trial, an interrupted study samples the same values.
            seed = int(np.random.default_rng([self.study.settings["seed"], number]).integers(2**31))
            self.optuna.sampler = optuna.samplers.TPESampler(seed=seed)
            yield self._train(self.optuna.ask(distributions), {})

    def _train(self, trial: Any, reported: dict[int, float]) -> int:
        """Train a trial until it completes, fails or is pruned; return its number."""
        from optuna.trial import TrialState

        values = {key: space.value(trial.params[key]) for key, space in self.spaces.items()}
        run = self.study.run(trial.number)
        try:
            if run is not None:
                for row in run.metrics():
                    self._report(trial, row, reported)
            recipe = resolve(self.recipe, values.items())
            options = {"observe": lambda row: self._report(trial, row, reported), "split": "validation"}
            run = resume_run(run, **options) if run else train_new(recipe, self.study.run_path(trial.number), **options)
            self.optuna.tell(trial, self._value(run))
        except Pruned:
            self.optuna.tell(trial, state=TrialState.PRUNED)
        except (TrainingError, BadOption) as error:
            trial.set_user_attr("failed", str(error))
            self.optuna.tell(trial, state=TrialState.FAIL)
        except Stopped as error:
            raise Stopped(
                f"Stopped in trial {trial.number}; no progress is lost. Resume with the same command and --study "
                f"{self.study.path}",
                error.code,
            ) from error
        return trial.number

    def _report(self, trial: Any, row: dict[str, Any], reported: dict[int, float]) -> None:
        """Report an epoch to Optuna; raise Pruned if it stops the trial."""
        if row["epoch"] not in reported:
            reported[row["epoch"]] = row[self.metric]
            trial.report(row[self.metric], row["epoch"])
        if row["epoch"] < self.recipe.epochs and trial.should_prune():
            self.study.run(trial.number).prune({"epoch": row["epoch"], self.metric: row[self.metric]})
            raise Pruned

    def _value(self, run: Run) -> float:
        """Return the validation metric of the saved weights."""
        if run.recipe.save == "last":
            return run.metrics()[-1][self.metric]
        return run.result()["best"][self.metric]

    def _trial(self, number: int) -> Trial:
        """Return a trial by its number."""
        trial = self.optuna.get_trials(deepcopy=False)[number]
        return Trial(
            number=trial.number,
            state=trial.state.name.lower(),
            metric=self.metric,
            value=trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step),
            epochs=trial.last_step or 0,
            values={key: space.value(trial.params[key]) for key, space in self.spaces.items()},
            run=str(self.study.run_path(trial.number)),
            failure=trial.user_attrs.get("failed", ""),
        )

    def _result(self) -> TuneResult:
        """Return the result of the study, and save its plots."""
        trials = [self._trial(number) for number in range(len(self.optuna.get_trials(deepcopy=False)))]
        complete = [trial for trial in trials if trial.state == "complete"]
        if not complete:
            reason = trials[-1].failure or trials[-1].state
            raise TrainingError(f"Expected at least one completed trial. Received: {reason} in the last trial.")
        importance = self._importance(len(complete))
        plot_history(self.study, trials, self.metric, self.sign)
        plot_importance(self.study, importance, self.metric)
        best = max(complete, key=lambda trial: self.sign * trial.value)
        return TuneResult(str(self.study.path), self.metric, tuple(trials), best, importance)

    def _importance(self, complete: int) -> dict[str, float]:
        """Return the fraction of the variance that each key explains; empty if trials are too few or equal."""
        import optuna

        if complete < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.study.settings["seed"])
        with contextlib.suppress(ValueError, RuntimeError):
            return optuna.importance.get_param_importances(self.optuna, evaluator=evaluator)
        return {}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Turn off Optuna's log inside."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
