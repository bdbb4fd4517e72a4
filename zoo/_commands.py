"""`zoo list` and `zoo show`: what there is, without TensorFlow, Keras or NumPy."""

from __future__ import annotations

from typing import Any

import click

from zoo._build import options_of
from zoo._console import json_option, print_json, print_table
from zoo._errors import UnknownName, did_you_mean
from zoo._registry import models


@click.command("list")
@click.argument("patterns", nargs=-1)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave these out; may be repeated.")
@click.option("--family", help="Only this family.")
@click.option("--tag", help="Only models with this tag.")
@json_option
def list_models(
    patterns: tuple[str, ...], exclude: tuple[str, ...], family: str | None, tag: str | None, as_json: bool
) -> None:
    """List the models whose names match PATTERNS (shell wildcards; all of them if there are none)."""
    everything = [models[name].spec for name in models.names()]
    _check_known("family", family, {s.family for s in everything})
    _check_known("tag", tag, {t for s in everything for t in s.tags})
    specs = [models[name].spec for name in models.names(*patterns, exclude=exclude)]
    specs = [s for s in specs if family in (None, s.family) and (tag is None or tag in s.tags)]
    if as_json:
        print_json([spec.to_json() for spec in specs])
        return
    rows = [(s.name, s.family, f"{s.params:,}", size(s.input_shape), s.classes, s.paper) for s in specs]
    print_table(("name", "family", "parameters", "input", "classes", "paper"), rows, right=(2, 4))


def _check_known(option: str, value: str | None, known: set[str]) -> None:
    if value is not None and value not in known:
        raise UnknownName(
            f"Expected a {option} that a model has. Received: {option}={value!r}. {did_you_mean(value, known)}"
        )


@click.command("show")
@click.argument("name")
@json_option
def show_model(name: str, as_json: bool) -> None:
    """Show what is known of the model NAME."""
    content = describe(name)
    if as_json:
        print_json(content)
        return
    for key, value in content.items():
        for line, text in enumerate(_lines(value)):
            click.echo(f"{key if line == 0 else '':14}{text}")


def describe(name: str) -> dict[str, Any]:
    """Return the spec of a model and the options that `zoo.get` takes for it, JSON-safe."""
    model = models[name]
    defaults = {n: model.arguments.get(n, p.default) for n, p in options_of(model).items()}
    return model.spec.to_json() | {"options": {n: list(v) if isinstance(v, tuple) else v for n, v in defaults.items()}}


def size(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it: 224x224x3."""
    return "x".join(map(str, shape))


def _lines(value: Any) -> list[str]:
    """Return a value as lines for people."""
    if isinstance(value, dict):
        return [f"{key}: {_text(v)}" for key, v in value.items()] or ["none"]
    return [_text(value)]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
