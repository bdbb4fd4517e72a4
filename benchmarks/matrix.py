"""Every small network by every format and every compression, for real: `python benchmarks/matrix.py`.

Each `_tiny` network is trained briefly on real data, made smaller in each way, exported to all formats at once by one
child process, compared with its source, inspected and verified. A cell is green, or refused with the reason that the
spec, a pre-check or the compression's own plan states; anything else is red, and the exit code 1. What is done stays in
the folder, so that a run that was stopped goes on where it was; delete the folder, or a file in it, to do it again.
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
from export.core.compression import compressions
from export.core.format import formats, parse_format
from export.pipeline import check_wanted, export_each
from export.source.origin import RunJob
from training.common.stopping import Stopped
from training.recipe.recipe import recipes
from training.runs.run import Run
from zoo.common.errors import BadOption, UnsupportedExport, ZooError
from zoo.common.files import read_json, write_bytes, write_json

PLAIN = "none"
GREEN, REFUSED, RED = "green", "refused", "red"
SMALL = 400_000  # parameters
# Epochs of the recipe's: a third of them, at least so many if it has as many.
SHARE, LEAST = 3, 40
# What a chain of one step is given, beside the epochs of training: {model} stands for the network itself.
VALUES = {"prune": "0.5", "structured": "0.5", "cluster": "16", "distil": "{model}"}
# They train a network anew, for as long; others take so many epochs.
ANEW, TUNING = ("distil",), 20
# What a converter complained of only when it ran; a refusal is said before.
LATE = "could not be written"
MARKS = {GREEN: "yes", RED: "**red**"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """What became of a network in a format after a compression.

    Args:
        state: "green", "refused" or "red".
        reason: why it is not green.
        agreement: share of equal answers; None where it is not green, or answers are numbers.
    """

    state: str
    reason: str = ""
    agreement: float | None = None


def models() -> list[str]:
    """Return the small networks."""
    return [name for name in zoo.names("*_tiny") if zoo.spec(name).params < SMALL]


def recipe_for(model: str) -> tuple[str, dict[str, Any]]:
    """Return the recipe that trains a network on real data, and what to change in it."""
    family = zoo.spec(model).family
    known = {name: training.get_recipe(name) for name in recipes.names("digits_*", "word_*", "reverse_*")}
    fitting = {name: recipe for name, recipe in known.items() if zoo.spec(recipe.model.name).family == family}
    exact = [name for name, recipe in fitting.items() if recipe.model.name == model]
    if exact:
        return exact[0], shortened(known[exact[0]])
    similar = [name for name, recipe in fitting.items() if zoo.spec(recipe.model.name).task == zoo.spec(model).task]
    name = similar[0]
    # Sizes, which fit the data; what else the network of the recipe is, this one is not.
    sizes = {key: value for key, value in known[name].model.options.items() if isinstance(value, int)}
    options = {key: value for key, value in sizes.items() if key in _options(model)}
    return name, {**shortened(known[name]), "model.name": model, "model.options": options}


def shortened(recipe: Any) -> dict[str, Any]:
    """Return what makes a recipe brief, though not so brief that answers are undecided."""
    return {"epochs": max(recipe.epochs // SHARE, min(recipe.epochs, LEAST))}


def _options(model: str) -> Iterable[str]:
    from zoo.build import options_of
    from zoo.specs.registry import models as registered

    return options_of(registered[model])


def trained(model: str, folder: Path) -> Run:
    """Return the finished run of a network, which is trained if it is not there."""
    place = folder / model / "run"
    if (place / "done.json").is_file():
        return Run.open(place)
    name, overrides = recipe_for(model)
    if place.exists():
        return training.resume(place)
    return training.train(name, overrides, run=place)


def chain_of(name: str, model: str) -> CompressionPipeline | None:
    """Return the chain of a compression alone; None for none."""
    if name == PLAIN:
        return None
    fields = {field.name for field in dataclasses.fields(compressions[name].options)}
    given = [VALUES[name].format(model=model)] if name in VALUES else []
    epochs = recipe_for(model)[1]["epochs"] if name in ANEW else TUNING
    given += [f"epochs={epochs}"] if "epochs" in fields else []
    return parse_pipeline(f"{name}:{','.join(given)}" if given else name)


def cells(run: Run, chain: CompressionPipeline | None, names: Sequence[str]) -> Iterator[tuple[str, Cell]]:
    """Yield what becomes of a network in each format."""
    origin, wanted = RunJob(run), {}
    for name in names:
        try:
            check_wanted(origin, parse_format(name), chain)
            wanted[name] = parse_format(name)
        except ZooError as error:
            yield name, judged(error)
    left = set(wanted)
    try:
        for name, made in export_each(origin, wanted, chain) if wanted else ():
            left.discard(name)
            yield name, judged(made)
    except ZooError as error:
        # The compression refused the network, or the process died: none of the rest was written.
        yield from ((name, judged(error)) for name in wanted if name in left)


def judged(made: export.Artifact | ZooError) -> Cell:
    """Return the cell of an artifact, which is verified from its files alone, or of an error."""
    if isinstance(made, ZooError):
        message = str(made)
        refusal = isinstance(made, (UnsupportedExport, BadOption)) and LATE not in message and "\n" not in message
        return Cell(REFUSED if refusal else RED, message)
    try:
        parity = export.verify(made.path).parity
    except ZooError as error:
        return Cell(RED, str(error))
    return Cell(GREEN, "", parity["agreement"])


def fill(folder: Path, names: Sequence[str], ways: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    """Fill the matrix, and keep each network's part of it as it is done.

    Args:
        folder: for runs and what is done.
        names: networks.
        ways: compressions, "none" among them.
        wanted: formats.

    Returns:
        Cells by compression, network and format.
    """
    found: dict[str, Any] = {way: {} for way in ways}
    for model in names:
        for way in ways:
            file = folder / model / f"{way}.json"
            done = read_json(file) if file.is_file() else {}
            left = [fmt for fmt in wanted if fmt not in done]
            if left:
                start = time.monotonic()
                made = {name: dataclasses.asdict(cell) for name, cell in cells_of(model, way, folder, left)}
                done |= made
                write_json(file, done)
                counts = ", ".join(f"{sum(c['state'] == s for c in made.values())} {s}" for s in (GREEN, REFUSED, RED))
                print(f"{model} {way}: {counts} in {time.monotonic() - start:.0f} s", flush=True)
            found[way][model] = {fmt: done[fmt] for fmt in wanted}
    return found


def cells_of(model: str, way: str, folder: Path, names: Sequence[str]) -> list[tuple[str, Cell]]:
    """Return the cells of a network after a compression."""
    try:
        run = trained(model, folder)
    except Stopped:
        raise
    except ZooError as error:
        # No refusal: the recipe is this file's own choice.
        return [(name, Cell(RED, str(error))) for name in names]
    try:
        return list(cells(run, chain_of(way, model), names))
    except ZooError as error:
        return [(name, judged(error)) for name in names]


def page(found: Mapping[str, Any]) -> str:
    """Return the matrix as Markdown, reasons below each table."""
    lines = [
        "# What leaves as what",
        "",
        "Written by `make matrix`: every small network, trained briefly on real data, made smaller in each way and "
        "exported to each format; each artifact was compared with its source in its real runtime, inspected and "
        "verified. A number stands for a refusal, with its reason below.",
    ]
    for way, rows in found.items():
        lines += ["", f"## {'As trained' if way == PLAIN else f'After {way}'}", "", *table(rows)]
    return "\n".join(lines) + "\n"


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of networks by formats, and the reasons of what is not green."""
    names = list(next(iter(rows.values())))
    reasons: dict[str, int] = {}
    lines = [f"| network | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for model, row in rows.items():
        marks = []
        for name in names:
            cell = row[name]
            general = short(cell["reason"], model, name)
            number = reasons.setdefault(general, len(reasons) + 1) if cell["reason"] else 0
            marks.append(" ".join(filter(None, (MARKS.get(cell["state"], ""), f"({number})" if number else ""))))
        lines.append(f"| {model} | {' | '.join(marks)} |")
    return [*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items())]


def short(reason: str, model: str, name: str) -> str:
    """Return a reason that is the same for all networks and formats that have it, without paths."""
    reason = re.sub(r"/\S+/", "", reason.replace("|", "\\|"))
    return re.sub(rf"\b{re.escape(model)}\b", "NETWORK", re.sub(rf"\b{re.escape(name)}\b", "FORMAT", reason))[:300]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the matrix and write the page; returns 1 if a cell is red."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/matrix"), help="for runs and what is done")
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
        f"{model} {way} {fmt}: {cell['reason']}"
        for way, rows in found.items()
        for model, row in rows.items()
        for fmt, cell in row.items()
        if cell["state"] == RED
    ]
    print("\n".join(["No cell is red."] if not red else ["Red:", *red]))
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
