"""Export every small model to every format after every compression: `python benchmarks/matrix.py`.

Each `_tiny` model is trained briefly on real data, compressed with each method, exported to all formats at once by one
child process, compared with its source model, inspected and verified. A cell is green, or refused with the reason of
the spec, a pre-check or the compression itself; anything else is red, and the exit code 1. Finished cells stay in the
folder, so that an interrupted run is resumed; delete the folder, or a file in it, to repeat them.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import export
import training
import zoo
from export.compression.pipeline import CompressionPipeline, parse_pipeline
from export.conversion.pipeline import check_request, export_each
from export.core.compression import compressions
from export.core.format import formats, parse_format
from export.source.job import RunJob
from training.common.stopping import Stopped
from training.recipe.recipe import recipes
from training.runs.run import Run
from zoo.common.errors import BadOption, UnsupportedExport, ZooError
from zoo.common.files import write_bytes, write_json
from zoo.reading.json_files import read_json

PLAIN = "none"
GREEN, REFUSED, RED = "green", "refused", "red"
SMALL = 400_000  # parameters
# A model is trained for a third of its recipe's epochs, but not fewer than 40 if the recipe has as many.
FRACTION, MIN_EPOCHS = 3, 40
# Values of a pipeline of one step; {model} is replaced by the model itself.
VALUES = {"prune": "0.5", "structured": "0.5", "cluster": "16", "distill": "{model}"}
# These train a new model for as many epochs as the recipe; others fine-tune for so many.
NEW_MODEL, FINE_TUNING_EPOCHS = ("distill",), 20
# In errors of a converter that already ran; a refusal comes before conversion.
LATE = "could not be converted"
MARKS = {GREEN: "yes", RED: "**red**"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """The result for a model in a format after a compression.

    Args:
        state: "green", "refused" or "red".
        reason: why it is not green.
        agreement: fraction of equal predictions; None unless it is green and predictions are classes.
    """

    state: str
    reason: str = ""
    agreement: float | None = None


def models() -> list[str]:
    """Return the names of the small models."""
    return [name for name in zoo.list_models("*_tiny") if zoo.spec(name).params < SMALL]


def recipe_for(model: str) -> tuple[str, dict[str, Any]]:
    """Return the recipe that trains a model on real data, and its overrides."""
    family = zoo.spec(model).family
    known = {name: training.get_recipe(name) for name in recipes.names("digits_*", "word_*", "reverse_*")}
    of_family = {name: recipe for name, recipe in known.items() if zoo.spec(recipe.model.name).family == family}
    exact = [name for name, recipe in of_family.items() if recipe.model.name == model]
    if exact:
        return exact[0], shortened(known[exact[0]])
    spec = zoo.spec(model)
    # A family without a recipe, such as pretrained encoders, trains on the data of another that takes the same input.
    task = "classify" if spec.task == "embed" else spec.task
    same = {name: zoo.spec(recipe.model.name) for name, recipe in (of_family or known).items()}
    fitting = [n for n, s in same.items() if s.task == task and bool(s.vocabulary) == bool(spec.vocabulary)]
    name = min(fitting, key=lambda n: same[n].inputs != spec.inputs)
    # Only the sizes are taken over: they fit the data, other options belong to the recipe's model.
    sizes = {key: value for key, value in known[name].model.options.items() if isinstance(value, int)}
    options = {key: value for key, value in sizes.items() if key in _options(model)}
    return name, {**shortened(known[name]), "model.name": model, "model.options": options}


def shortened(recipe: Any) -> dict[str, Any]:
    """Return overrides for a short training, long enough for confident predictions."""
    return {"epochs": max(recipe.epochs // FRACTION, min(recipe.epochs, MIN_EPOCHS))}


def _options(model: str) -> Iterable[str]:
    from zoo.build import options_of
    from zoo.specs.registry import models as registered

    return options_of(registered[model])


def trained(model: str, folder: Path) -> Run:
    """Return the finished run of a model; train it if there is none."""
    place = folder / model / "run"
    if (place / "done.json").is_file():
        return Run.open(place)
    name, overrides = recipe_for(model)
    if place.exists():
        return training.resume(place)
    return training.train(name, overrides, run=place)


def pipeline_of(name: str, model: str) -> CompressionPipeline | None:
    """Return the compression pipeline of one method; None for no compression."""
    if name == PLAIN:
        return None
    fields = {field.name for field in dataclasses.fields(compressions[name].options)}
    given = [VALUES[name].format(model=model)] if name in VALUES else []
    epochs = recipe_for(model)[1]["epochs"] if name in NEW_MODEL else FINE_TUNING_EPOCHS
    given += [f"epochs={epochs}"] if "epochs" in fields else []
    return parse_pipeline(f"{name}:{','.join(given)}" if given else name)


def cells(run: Run, pipeline: CompressionPipeline | None, names: Sequence[str]) -> Iterator[tuple[str, Cell]]:
    """Yield the cell of each format."""
    origin, wanted = RunJob(run), {}
    for name in names:
        try:
            check_request(origin, parse_format(name), pipeline)
            wanted[name] = parse_format(name)
        except ZooError as error:
            yield name, cell_of(error)
    left = set(wanted)
    try:
        for name, made in export_each(origin, wanted, pipeline) if wanted else ():
            left.discard(name)
            yield name, cell_of(made)
    except ZooError as error:
        # The compression refused the model, or the process died: none of the rest was written.
        yield from ((name, cell_of(error)) for name in wanted if name in left)


def cell_of(result: export.Artifact | ZooError) -> Cell:
    """Return the cell of an artifact, which is verified from its files alone, or of an error."""
    if isinstance(result, ZooError):
        message = str(result)
        refusal = isinstance(result, (UnsupportedExport, BadOption)) and LATE not in message and "\n" not in message
        return Cell(REFUSED if refusal else RED, message)
    try:
        parity = export.verify(result.path).parity
    except ZooError as error:
        return Cell(RED, str(error))
    return Cell(GREEN, "", parity["agreement"])


def fill(folder: Path, names: Sequence[str], methods: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    """Fill the matrix, and save the cells of each model when they are finished.

    Args:
        folder: for runs and finished cells.
        names: models.
        methods: compressions, and "none".
        wanted: formats.

    Returns:
        Cells by compression, model and format.
    """
    found: dict[str, Any] = {method: {} for method in methods}
    for model in names:
        for method in methods:
            file = folder / model / f"{method}.json"
            done = read_json(file) if file.is_file() else {}
            left = [fmt for fmt in wanted if fmt not in done]
            if left:
                start = time.monotonic()
                made = {name: dataclasses.asdict(cell) for name, cell in cells_of(model, method, folder, left)}
                done |= made
                write_json(file, done)
                counts = ", ".join(f"{sum(c['state'] == s for c in made.values())} {s}" for s in (GREEN, REFUSED, RED))
                print(f"{model} {method}: {counts} in {time.monotonic() - start:.0f} s", flush=True)
            found[method][model] = {fmt: done[fmt] for fmt in wanted}
    return found


def cells_of(model: str, method: str, folder: Path, names: Sequence[str]) -> list[tuple[str, Cell]]:
    """Return the cells of a model after a compression."""
    try:
        run = trained(model, folder)
    except Stopped:
        raise
    except ZooError as error:
        # This is no refusal: the recipe is chosen here.
        return [(name, Cell(RED, str(error))) for name in names]
    try:
        return list(cells(run, pipeline_of(method, model), names))
    except ZooError as error:
        return [(name, cell_of(error)) for name in names]


def page(found: Mapping[str, Any]) -> str:
    """Return the matrix as Markdown, reasons below each table."""
    lines = [
        "# Models, formats and compressions",
        "",
        "Written by `make matrix`: every small model is trained briefly on real data, compressed with each method and "
        "exported to each format. Each artifact is compared with its source model in its real runtime, inspected and "
        "verified. A number stands for a refusal; its reason is below the table.",
    ]
    for method, rows in found.items():
        lines += ["", f"## {'As trained' if method == PLAIN else f'After {method}'}", "", *table(rows)]
    return "\n".join(lines) + "\n"


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of models by formats, and the reasons of the cells that are not green."""
    names = list(next(iter(rows.values())))
    # Cells of a reason that differs in the names of model and format alone.
    reasons: dict[str, list[tuple[str, str]]] = {}
    lines = [f"| model | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for model, row in rows.items():
        marks = []
        for name in names:
            cell, number = row[name], 0
            if cell["reason"]:
                reasons.setdefault(general(cell["reason"], model, name), []).append((model, name))
                number = list(reasons).index(general(cell["reason"], model, name)) + 1
            marks.append(" ".join(filter(None, (MARKS.get(cell["state"], ""), f"({number})" if number else ""))))
        lines.append(f"| {model} | {' | '.join(marks)} |")
    return [*lines, "", *(f"{n}. {specific(*item)}" for n, item in enumerate(reasons.items(), start=1))]


MODEL, FORMAT = "\0model\0", "\0format\0"


def general(reason: str, model: str, name: str) -> str:
    """Return a reason with marks in place of the names of model and format, and without paths."""
    reason = re.sub(r"/\S+/", "", reason.replace("|", "\\|"))
    return re.sub(rf"\b{re.escape(model)}\b", MODEL, re.sub(rf"\b{re.escape(name)}\b", FORMAT, reason))[:300]


def specific(reason: str, cells: Iterable[tuple[str, str]]) -> str:
    """Return a reason with the names of all models and formats that it holds for."""
    names, formats_ = (", ".join(dict.fromkeys(column)) for column in zip(*cells, strict=True))
    return reason.replace(MODEL, names).replace(FORMAT, formats_)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the matrix and write the page; returns 1 if a cell is red."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/matrix"), help="for runs and finished cells")
    parser.add_argument("--models", nargs="+", default=models())
    parser.add_argument("--compressions", nargs="+", default=[PLAIN, *compressions.names()])
    parser.add_argument("--formats", nargs="+", default=formats.names())
    parser.add_argument("--out", type=Path, default=Path("docs/matrix.md"))
    given = parser.parse_args(arguments)
    found = fill(given.folder, given.models, given.compressions, given.formats)
    text = page(found)
    write_bytes(given.out, text.encode())
    print(text)
    red = [
        f"{model} {method} {fmt}: {cell['reason']}"
        for method, rows in found.items()
        for model, row in rows.items()
        for fmt, cell in row.items()
        if cell["state"] == RED
    ]
    print("\n".join(["No cell is red."] if not red else ["Red:", *red]))
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
