"""The README says what is true."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture
def readme(root):
    """The module that generates the tables."""
    spec = importlib.util.spec_from_file_location("readme", root / "tools" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_what_the_registries_say(readme):
    """Run `make readme` if this fails."""
    text = readme.README.read_text(encoding="utf-8")
    assert readme.render(text) == text


@pytest.mark.parametrize(
    ("number", "other"), [("25,557,032", "25,557,033"), ("| 92.49% (published) |", "| 92.59% (published) |")]
)
def test_a_stale_table_is_found(readme, number, other):
    """The control: another number is not what the registries and the recipes' files say."""
    text = readme.README.read_text(encoding="utf-8")
    assert number in text
    assert readme.render(text.replace(number, other)) != text.replace(number, other)


def test_commands_named_in_the_readme_exist(readme, zoo_command):
    """Every `zoo COMMAND` in it is a command of ours."""
    import re

    from zoo.__main__ import COMMANDS

    named = set(re.findall(r"\bzoo ([a-z-]+)\b", readme.README.read_text(encoding="utf-8")))
    assert named <= set(COMMANDS), named - set(COMMANDS)


def test_example_family_has_the_parameters_it_states(readme):
    """The code block that adds a family runs, and its count is right."""
    import re

    import zoo
    from zoo.specs.registry import models

    block = next(
        b
        for b in re.findall(r"```python\n(.*?)```", readme.README.read_text(encoding="utf-8"), re.S)
        if "@zoo.register_model" in b
    )
    try:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme_example"})
        network = zoo.get("my_net")
        count = sum(int(w.shape.num_elements()) for w in network.trainable_weights)
        assert count == zoo.spec("my_net").params
    finally:
        models._entries.pop("my_net", None)
        models._origins.pop("my_net", None)
