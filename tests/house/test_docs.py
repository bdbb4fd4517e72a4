"""The README and docs/ are true: generated tables, commands, options, links and Python blocks."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys

import click
import docs_tables
import pytest
from source_tree import ROOT

from zoo.__main__ import COMMANDS, cli
from zoo.specs.registry import models

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)


def read(page):
    """The text of a page."""
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", docs_tables.PARTS)
def test_tables_equal_the_registries(page):
    """Run `make docs-tables` if this fails."""
    text = read(docs_tables.DOCS / page)
    assert docs_tables.render(page, text) == text


@pytest.mark.parametrize(
    ("page", "number", "other"),
    [
        ("models.md", "25,557,032", "25,557,033"),
        ("recipes.md", "92.49% (published)", "92.59% (published)"),
        ("formats.md", "99.5%", "99.4%"),
        ("architecture.md", "training_learning --> training_optim", "training_optim --> training_learning"),
    ],
)
def test_stale_table_is_found(page, number, other):
    """The control: a changed number differs from the registries and the recipes."""
    text = read(docs_tables.DOCS / page)
    assert number in text
    assert docs_tables.render(page, text.replace(number, other)) != text.replace(number, other)


def test_readme_is_short():
    """It is read to its end; everything else is in docs/."""
    assert len(README.read_bytes()) <= 8_000
    families = {models[name].spec.family for name in models.names()}
    assert f"{len(models.names())} models of {len(families)} families" in read(README)


def commands(text):
    """Pairs (command, words behind it) of the lines in code blocks that call `zoo`."""
    lines = [line for _, block in BLOCK.findall(text) for line in block.splitlines()]
    calls = [call for line in lines for call in re.split(r"\s{3,}", line.partition("#")[0])]
    found = (re.match(r"(?:\w+=\S+ )*zoo ([a-z][a-z-]*)(.*)", call.strip()) for call in calls)
    return [(match[1], match[2].split()) for match in found if match]


@by_page
def test_named_commands_exist(page):
    """Every `zoo COMMAND` is a command."""
    named = set(re.findall(r"\bzoo ([a-z][a-z-]*)\b", " ".join(re.findall(r"`+[^`]+`+", read(page)))))
    named |= {command for command, _ in commands(read(page))}
    # The changelog names the commands of older versions.
    assert named - set(COMMANDS) <= ({"health"} if page.name == "CHANGELOG.md" else set())


@by_page
def test_named_options_exist(page):
    """Every option behind a command is one of its options."""
    context = click.Context(cli)
    for command, words in commands(read(page)):
        known = {option for parameter in cli.get_command(context, command).params for option in parameter.opts}
        assert [word for word in words if word.startswith("--") and word not in {*known, "--help"}] == [], command


def test_commands_are_read():
    """The control: commands in code blocks are found with their options, several in a line too."""
    text = "```sh\nA=1 zoo train x --set a=b  # zoo no\nzoo list      zoo show --jsn\n```\nzoo nothing"
    assert commands(text) == [("train", ["x", "--set", "a=b"]), ("list", []), ("show", ["--jsn"])]


@by_page
def test_links_lead_to_files(page):
    """Every relative link and picture exists."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(page))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_makefile_has_the_named_targets():
    """Every `make TARGET` is a target."""
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.M))
    for page in PAGES:
        named = {name for pair in re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", read(page), re.M) for name in pair}
        assert named - {""} <= targets, page.name


def test_pages_name_files_that_exist():
    """Paths of the architecture page are in the tree."""
    paths = re.findall(
        r"`((?:zoo|training|export|tests|tools|benchmarks)/[\w/.]+)`", read(ROOT / "docs/architecture.md")
    )
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_matrix_names_models_and_formats():
    """A refusal names what it holds for; no placeholder is left in the page."""
    text = read(ROOT / "docs/matrix.md")
    assert "tflite_int4" in text
    assert re.findall(r"\b(?:FORMAT|NETWORK|MODEL)\b|\0", text) == []


def python_blocks(page):
    """The Python blocks of a page."""
    return [block for language, block in BLOCK.findall(read(page)) if language == "python"]


def test_readme_calls_fit():
    """Each function that the Python blocks of the README call is public and takes the arguments."""
    tree = ast.parse("\n".join(python_blocks(README)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    found = set()
    for call in calls:
        module, name = ast.unparse(call.func.value), call.func.attr
        if module in ("zoo", "training", "export"):
            function = getattr(importlib.import_module(module), name)
            keywords = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(function).bind(*[None] * len(call.args), **keywords)
            found.add(f"{module}.{name}")
    assert found >= {"zoo.get", "training.train", "export.convert", "export.load", "export.verify"}


@pytest.mark.slow
@pytest.mark.tensorflow
def test_readme_blocks_run(python, tmp_path):
    """The Python blocks of the README run unchanged, in an empty folder."""
    source = "\n".join(python_blocks(README))
    assert "export.convert" in source
    process = python("-c", source, cwd=tmp_path, warm=True)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "accuracy" in out
    assert list(tmp_path.glob("runs/digits_mlp/*/exports/onnx/manifest.json"))


@pytest.mark.tensorflow
def test_example_family_has_the_documented_parameters():
    """The code block that adds a family runs, and its count is right."""
    import zoo

    block = next(b for b in python_blocks(ROOT / "docs/architecture.md") if "@zoo.register_model" in b)
    try:
        exec(compile(block, "architecture.md", "exec"), {"__name__": "docs_example"})
        model = zoo.get("my_net")
        count = sum(int(w.shape.num_elements()) for w in model.trainable_weights)
        assert count == zoo.spec("my_net").params
    finally:
        models._entries.pop("my_net", None)
        models._origins.pop("my_net", None)
        sys.modules.pop("docs_example", None)
