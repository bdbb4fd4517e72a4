"""Write the generated parts of docs/, and the counts of every model: `make docs-tables` writes, the tests compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from source_tree import PACKAGES, ROOT, modules, reduced, room_graph

import export
import zoo
from export.core.compression import compressions as compression_registry
from export.core.format import formats as format_registry
from export.core.options import choices
from training.recipe.docstrings import recipe_metadata
from training.recipe.recipe import recipes as recipe_registry
from zoo import counts
from zoo.__main__ import SECTIONS
from zoo.specs import counts as specs_counts
from zoo.specs.registry import models as model_registry

DOCS = ROOT / "docs"


def table(head: Iterable[str], right: Iterable[int], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; the columns numbered in `right` are aligned to the right."""
    head, right = list(head), set(right)
    rule = ["--:" if number in right else "---" for number in range(len(head))]
    lines = [head, rule, *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def models() -> str:
    """Return the table of models."""
    head = ("model", "family", "parameters", "GMACs", "input", "classes", "smallest input", "published top-1")
    return table(head, (2, 3, 5), (_model_row(model_registry[name].spec) for name in model_registry.names()))


def _model_row(spec: zoo.ModelSpec) -> tuple[str, ...]:
    size = "x".join(map(str, spec.input_shape))
    smallest = f"{spec.min_size}x{spec.min_size}" if spec.min_size else "any"
    costs = (f"{spec.params:,}", f"{spec.gmacs:.4g}")
    return (f"`{spec.name}`", spec.family, *costs, size, str(spec.classes), smallest, published(spec))


def published(spec: zoo.ModelSpec) -> str:
    """Return the top-1 accuracy of the first published weights, their source, and the input size if it differs."""
    if not spec.weights:
        return ""
    best = spec.weights[0]
    size = "" if best.size == spec.input_shape[0] else f" at {best.size}x{best.size}"
    return f"{best.top1:g}%{size} (`{best.source}`)"


def formats() -> str:
    """Return the table of formats."""
    head = ("format", "description", "options", "max error", "min SNR", "min top-1 agreement", "max accuracy drop")
    return table(head, (3, 4, 5, 6), map(_format_row, export.list_formats()))


def _format_row(name: str) -> tuple[str, ...]:
    fmt = format_registry[name]
    allowed, options = fmt.tolerance, ", ".join(f"`{choice.text}`" for choice in choices(fmt.options))
    exact = allowed.snr is None
    limits = (
        f"{allowed.relative:g}",
        "" if exact else f"{allowed.snr:g} dB",
        f"{100 * allowed.agreement:g}%{'' if exact else ' (weighted, without labels)'}",
        f"{100 * allowed.drop:g} points{'' if exact else ' (paired test)'}",
    )
    return (f"`{name}`", fmt.summary, options, *limits)


def compressions() -> str:
    """Return the table of compression methods."""
    names = export.list_compressions()
    return table(("compression", "syntax and effect"), (), ((f"`{n}`", compression_registry[n].summary) for n in names))


def recipes() -> str:
    """Return the table of recipes, from the docstrings of their files; published results are marked."""
    head = ("recipe", "model", "data", "test accuracy", "time", "hardware")
    names = (n for n in recipe_registry.names() if recipe_registry.origin(n).startswith("training.recipes."))
    return table(head, (3,), map(_recipe_row, names))


def _recipe_row(name: str) -> tuple[str, ...]:
    recipe, result = recipe_registry[name], recipe_metadata(name)
    accuracy = result.shown or result.result
    cells = (f"`{name}`", f"`{recipe.model.name}`", f"`{recipe.data.name}`", accuracy, result.time, result.hardware)
    return tuple(cell.rstrip(".") for cell in cells)


def commands() -> str:
    """Return a table of commands for each section of `zoo --help`."""
    rows = ((f"`zoo {n}`", entry.help, title) for title, found in SECTIONS.items() for n, entry in found.items())
    return table(("command", "description", "section"), (), rows)


def rooms() -> str:
    """Return the drawing of the rooms; an arrow that a longer path implies is left out."""
    graph = reduced(room_graph(modules(*PACKAGES)))
    lines = ["```mermaid", "graph LR"]
    for package in PACKAGES:
        names = [room for room in sorted(graph) if room.partition(".")[0] == package]
        lines += [
            f"  subgraph {package}",
            *(f'    {_node(room)}["{room.replace(".", "/")}"]' for room in names),
            "  end",
        ]
    lines += [f"  {_node(room)} --> {_node(target)}" for room in sorted(graph) for target in graph[room]]
    return "\n".join([*lines, "```"])


def _node(room: str) -> str:
    return room.replace(".", "_")


# Generated parts by page and name.
PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "models.md": {"models": models},
    "recipes.md": {"recipes": recipes},
    "formats.md": {"formats": formats},
    "compression.md": {"compressions": compressions},
    "command-line.md": {"commands": commands},
    "architecture.md": {"rooms": rooms},
}


def render(page: str, text: str) -> str:
    """Return a page with its generated parts renewed."""
    for name, make in PARTS[page].items():
        start, end = f"<!-- {name}: generated by `make docs-tables` -->", f"<!-- /{name} -->"
        before, after = text.split(start)[0], text.split(end)[1]
        text = f"{before}{start}\n\n{make()}\n\n{end}{after}"
    return text


def pages() -> list[Path]:
    """Return the pages with generated parts."""
    return [DOCS / page for page in PARTS]


if __name__ == "__main__":
    # The table of models is made from the file of counts.
    counted = {name: counts.count(name) for name in model_registry.names()}
    specs_counts.FILE.write_text(specs_counts.to_text(counted), encoding="utf-8")
    for path in pages():
        path.write_text(render(path.name, path.read_text(encoding="utf-8")), encoding="utf-8")
