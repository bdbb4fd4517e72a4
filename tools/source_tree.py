"""Read the source of the three packages: modules, imports, and the graph between modules and rooms.

The house tests and the page about the architecture are made from it; nothing of the packages is imported.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("zoo", "training", "export")  # each may import those before it
AROUND = ("tests", "benchmarks", "tools")  # code that is not installed
# Folders that the registries search: one new file there is a new family, dataset, recipe, format or compression.
CONTENT = ("zoo/models", "training/datasets", "training/recipes", "export/formats", "export/compressions")
# It connects the packages, so that it alone imports all of them.
COMMAND = "zoo/__main__.py"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Module(NamedTuple):
    """A Python file.

    Args:
        path: relative to the repository.
        source: its text.
        tree: its syntax tree.
    """

    path: str
    source: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def parse(path: str, source: str) -> Module:
    """Return the module of a text."""
    return Module(path, source, ast.parse(source))


@functools.cache
def modules(*folders: str) -> list[Module]:
    """Return the Python files of folders of the repository."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def is_content(path: str) -> bool:
    """Return whether a file is a family, dataset, recipe, format or compression: its folder decides."""
    file = Path(path)
    return file.parent.as_posix() in CONTENT and file.name != "__init__.py"


def top_level(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is imported, without TYPE_CHECKING blocks."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from top_level(child)


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the dotted names in import statements and in calls of `import_module` and `LazyModule`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "LazyModule", "__import__"):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant))


def called(node: ast.Call) -> str:
    """Return the last part of the name that a call calls."""
    return ast.unparse(node.func).rpartition(".")[2]


def under(name: str, packages: Collection[str]) -> bool:
    """Return whether a dotted name is one of the packages, or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def module_graph(found: Iterable[Module]) -> dict[str, set[str]]:
    """Return the modules that each module imports.

    An import inside a function or under TYPE_CHECKING counts, and so does a text that is the name of a module, such as
    that of a worker process.
    """
    trees = {module.name: module.tree for module in found}
    return {name: {t for t in _targets(tree, trees) if t != name} for name, tree in trees.items()}


def _targets(tree: ast.AST, known: Collection[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            yield from {node.value} & set(known)
    for name in imported(ast.walk(tree)):
        # `from a import b` imports the module a.b, or something of the module a.
        yield from [name] if name in known else {name.rpartition(".")[0]} & set(known)


def room_graph(found: Iterable[Module]) -> dict[str, set[str]]:
    """Return the rooms that each room imports.

    A room is a folder. The public modules of the packages and the commands are left out: they are imported by users,
    and import any room.
    """
    listed = {module.name: module for module in found}
    inside = {name: module for name, module in listed.items() if not _is_front(module)}
    graph: dict[str, set[str]] = {_room(module): set() for module in inside.values()}
    edges = module_graph(listed.values())
    for name, module in inside.items():
        graph[_room(module)] |= {_room(inside[t]) for t in edges[name] if t in inside} - {_room(module)}
    return graph


def _is_front(module: Module) -> bool:
    return Path(module.path).name in ("__init__.py", "__main__.py", "commands.py")


def _room(module: Module) -> str:
    return module.name.rpartition(".")[0]


def cycles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach one another, each sorted."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {tuple(sorted(other for other in reach[node] if node in reach[other])) for node in graph}
    return [list(group) for group in sorted(groups) if group]


def _reachable(graph: Mapping[str, Collection[str]], start: str) -> set[str]:
    """Return the nodes that a path from `start` leads to; `start` itself only on a cycle."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph[node]
    return found


def reduced(graph: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Return a graph without the edges that a longer path implies, for a drawing."""
    reach = {node: _reachable(graph, node) for node in graph}
    return {
        node: sorted(t for t in targets if not any(t in reach[other] for other in targets if other != t))
        for node, targets in graph.items()
    }
