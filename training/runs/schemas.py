"""The types of the JSON files in a run directory; see `zoo.reading.schema.fit`. Other keys are passed as they are."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Task = Literal["classify", "multilabel", "regress", "tag", "generate", "multitask"]


class RecipeFile(TypedDict):
    """recipe.json."""

    version: int
    recipe: dict[str, Any]


class ExtendedRecipeFile(RecipeFile, total=False):
    """recipe.json of a run that may have been extended: the epochs that it had before."""

    epochs_before: list[int]
    paths: list[str]


class RequiredMetrics(TypedDict):
    """Metrics of every task."""

    split: str
    examples: int
    loss: float | None


class Metrics(RequiredMetrics, total=False):
    """Metrics of a split."""

    accuracy: float | None
    sequence_accuracy: float | None
    mean_average_precision: float | None
    micro_f1: float | None
    average_precision: dict[str, float | None]
    rmse: float | None
    mae: float | None
    r2: float | None
    confusion: list[list[int]] | None
    score: float | None
    targets: dict[str, dict[str, Any]]


class Best(TypedDict):
    """The best epoch, with its metric."""

    epoch: int


class RequiredResult(TypedDict):
    """Entries of done.json that exports and reports need."""

    version: int
    test: Metrics
    best: Best
    seconds: float
    epochs: int
    ended: str
    parameters: int
    task: Task
    labels: list[str]
    input_shape: list[Any]
    preprocessing: dict[str, Any]
    splits: dict[str, int]
    precision: str
    strategy: str


class Result(RequiredResult, total=False):
    """done.json."""

    backend: str
    files: dict[str, str]
    outputs: list[dict[str, Any]]
    replicas: int
    workers: int
    processor: str


class RequiredEnvironment(TypedDict):
    """Entries of env.json that reports need."""

    python: str
    processor: str
    cores: int | None
    versions: dict[str, str]


class Environment(RequiredEnvironment, total=False):
    """env.json."""

    created: str
    system: str
    backend: str


class Summary(TypedDict, total=False):
    """The summary of the data."""

    examples: dict[str, int]
    classes: dict[str, dict[str, int]]
    columns: list[list[str]]
    notes: list[str]


class Statistics(TypedDict, total=False):
    """data.json; `training.data.pipeline.opening` reads the other entries."""

    summary: Summary
    preprocessing: dict[str, Any]
    pretrained: dict[str, Any]
    scale: dict[str, Any]
    tabular: dict[str, Any]
    bits: int
    skipped: dict[str, str]


class Files(TypedDict):
    """files.json: name, size in bytes, time of the last change in nanoseconds, and digest of each file."""

    version: int
    root: str
    suffixes: list[str]
    labels: list[str]
    files: dict[str, list]
    others: list
    unused: list[str]


class Epoch(TypedDict):
    """A row of metrics.jsonl; the other entries are numbers."""

    epoch: int


class Step(TypedDict):
    """A row of diagnostics.jsonl."""

    step: int
