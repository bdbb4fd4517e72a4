"""The model card of a repository: metadata that the hub reads, and what a user needs to know, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import zoo
from export.publishing.bundle import Bundle, target_scale
from training.learning.tasks import NAMES, TASKS
from zoo.common.lazy import hub
from zoo.weights.configs import LIBRARY

# The hub's name of a task, by the kind of input and by our task.
PIPELINES = {
    ("image", "classify"): "image-classification",
    ("image", "multilabel"): "image-classification",
    ("ids", "classify"): "text-classification",
    ("ids", "multilabel"): "text-classification",
    ("ids", "embed"): "feature-extraction",
    ("ids", "tag"): "token-classification",
    ("source", "generate"): "translation",
    ("features", "classify"): "tabular-classification",
    ("features", "multilabel"): "tabular-classification",
    ("features", "regress"): "tabular-regression",
}
SHOWN = 20  # labels in the text; all are in the config and in the manifests


def model_card(bundle: Bundle, address: str) -> str:
    """Return the text of README.md.

    Args:
        bundle: what is pushed.
        address: "hf://user/repository".
    """
    sections = [_head(bundle), _use(bundle, address), *_results(bundle), *_preprocessing(bundle)]
    sections += [*_artifacts(bundle), *_labels(bundle), _terms(bundle)]
    return f"---\n{_metadata(bundle, address).to_yaml().strip()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(bundle: Bundle, address: str) -> Any:
    """Return the front matter; the hub shows its results as a table."""
    pipeline, data = _pipeline(bundle), _data(bundle)
    tags = [LIBRARY, "keras", bundle.model, *dict.fromkeys(a.format for a in bundle.artifacts)]
    found = {"datasets": [data]} if data else {}
    if bundle.origin and bundle.origin.startswith(("timm/", "hf://")):
        found["base_model"] = bundle.origin.removeprefix("hf://").partition("@")[0]
    if bundle.run:
        found |= {"model_name": address.rpartition("/")[2], "eval_results": _eval_results(bundle, pipeline)}
    return hub.ModelCardData(license=bundle.license, library_name=LIBRARY, tags=tags, pipeline_tag=pipeline, **found)


def _eval_results(bundle: Bundle, pipeline: str | None) -> list[Any]:
    """Return the metrics of a run on its test split."""
    test = bundle.run.result()["test"]
    where = {"dataset_type": bundle.run.recipe.data.name, "dataset_name": bundle.run.recipe.data.name}
    where |= {"task_type": pipeline or "other", "dataset_split": test["split"]}
    return [hub.EvalResult(metric_type=key, metric_value=value, **where) for key, value in _metrics(bundle).items()]


def _metrics(bundle: Bundle) -> dict[str, float]:
    """Return the metrics of a run's task."""
    result = bundle.run.result()
    shown = TASKS[result.get("task", "classify")].shown
    found = {key: result["test"][key] for key in shown if isinstance(result["test"].get(key), float)}
    for name, values in (result["test"].get("targets") or {}).items():
        found |= {f"{name} {key}": values[key] for key in TASKS[values["task"]].shown if key in values}
    return found


def _task(bundle: Bundle) -> str:
    if bundle.run:
        return bundle.run.result().get("task", "classify")
    return bundle.metadata.get("task", "classify")


def _pipeline(bundle: Bundle) -> str | None:
    """Return the hub's name of the task; None if it has none."""
    shape = bundle.stored.input_shape if bundle.stored else bundle.metadata["shape"]
    kind = zoo.spec(bundle.model).inputs[0]
    return PIPELINES.get(("image" if kind == "features" and len(shape) == 3 else kind, _task(bundle)))


def _data(bundle: Bundle) -> str | None:
    """Return the name of a registered data set; a user's own files have none."""
    data = bundle.run.recipe.data if bundle.run else None
    return data.name if data and not data.path else None


def _head(bundle: Bundle) -> str:
    """Return the title and what it is."""
    spec, run = zoo.spec(bundle.model), bundle.run
    what = f"`{bundle.model}` of keras-zoo ({spec.paper})" if spec.paper else f"`{bundle.model}` of keras-zoo"
    if run is None:
        return f"# {bundle.model}\n\nArtifacts of {what}, verified against their source model."
    data = f"`{_data(bundle)}`" if _data(bundle) else "own data"
    text = f"{what}, trained on {data} by the recipe `{run.recipe.name}` in {run.recipe.epochs} epochs"
    start = f", from the weights {bundle.origin}" if bundle.origin else ""
    return f"# {run.recipe.name}\n\n{text[:1].upper()}{text[1:]}{start}."


def _use(bundle: Bundle, address: str) -> str:
    """Return how to load it."""
    lines = ["pip install keras-zoo"]
    code = []
    if bundle.stored:
        code += ["import zoo", "", f'model = zoo.get("{address}")  # a keras.Model', "zoo.info(model)", ""]
    if bundle.artifacts:
        one = address if len(bundle.artifacts) == 1 else f"{address}/{bundle.artifacts[0].name}"
        code += ["import export", "", f'predict = export.load("{one}")  # raw values in, preprocessing inside']
    code = code[:-1] if code[-1] == "" else code
    return "\n".join(["## Use", "", "```sh", *lines, "```", "", "```python", *code, "```"])


def _results(bundle: Bundle) -> Iterator[str]:
    """Yield the metrics of a run."""
    if bundle.run is None:
        return
    result = bundle.run.result()
    test, splits = result["test"], result["splits"]
    rows = [(NAMES.get(key, key), f"{value:.4f}") for key, value in _metrics(bundle).items()]
    rows.append(("loss", f"{test['loss']:.4f}"))
    text = f"On {test['examples']:,} examples of the {test['split']} split, after training on {splits['train']:,}:"
    yield f"## Results\n\n{text}\n\n{_table(('metric', 'value'), rows)}"


def _preprocessing(bundle: Bundle) -> Iterator[str]:
    """Yield what the weights expect, and the scale of the targets of a regression."""
    config = bundle.stored and bundle.stored.info.preprocessing
    if config:
        rows = [(key, _text(value)) for key, value in config.to_json().items()]
        yield (
            "## Preprocessing\n\nThe weights expect (x - mean) / std of raw values; images are resized and cropped "
            f"first. It is inside every artifact.\n\n{_table(('key', 'value'), rows)}"
        )
    scale = bundle.run and target_scale(bundle.run)
    if scale:
        yield (
            f"The weights predict targets in deviations from their mean: mean {_text(scale['mean'])}, deviation "
            f"{_text(scale['std'])}. Artifacts predict them in the units of the data."
        )


def _artifacts(bundle: Bundle) -> Iterator[str]:
    """Yield the table of the artifacts with their verification."""
    if not bundle.artifacts:
        return
    head = ("artifact", "format", "MB", "max difference", "same top-1", "metric", "examples")
    rows = [
        (
            f"`{a.name}`",
            a.format,
            f"{a.manifest['bytes'] / 1e6:.2f}",
            f"{a.parity['relative']:.1e}",
            "–" if a.parity["agreement"] is None else f"{a.parity['agreement']:.4f}",
            "–" if a.parity["accuracy"] is None else f"{a.parity['accuracy']:.4f}",
            f"{a.parity['n']:,}",
        )
        for a in bundle.artifacts
    ]
    yield (
        "## Formats\n\nEach artifact was run in its runtime and compared with its source model; the difference is a "
        f"fraction of the largest output. SHA-256 digests are in `exports/*/manifest.json`.\n\n{_table(head, rows)}"
    )


def _labels(bundle: Bundle) -> Iterator[str]:
    """Yield the first labels."""
    labels = (bundle.stored and bundle.stored.info.labels) or bundle.metadata.get("labels")
    if labels:
        more = f", … ({len(labels):,} in all)" if len(labels) > SHOWN else ""
        yield f"## Labels\n\n{', '.join(map(_escaped, labels[:SHOWN]))}{more}"


def _terms(bundle: Bundle) -> str:
    return f"## License\n\n{bundle.license or 'Not stated.'}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(text: str) -> str:
    """Return a text that stays in its cell."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def _text(value: Any) -> str:
    return ", ".join(f"{each:g}" for each in value) if isinstance(value, (list, tuple)) else str(value)
