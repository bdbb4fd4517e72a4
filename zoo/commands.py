"""`zoo list` and `zoo show`: registered models, without importing TensorFlow, Keras or NumPy."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zoo.common.console import json_option, print_json, print_table
from zoo.common.errors import ZooError
from zoo.common.licenses import noncommercial_option
from zoo.description import describe, layers_text, macs_unit, size
from zoo.specs.listing import list_models
from zoo.specs.registry import models
from zoo.specs.tasks import task_of

WIDTH = 100
KEY = 15  # columns


@click.command("list")
@click.argument("patterns", nargs=-1)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Exclude matching models; repeatable.")
@click.option("--family", help="Only models of this family.")
@click.option("--tag", help="Only models with this tag.")
@click.option("--pretrained", is_flag=True, help="Only models with published weights.")
@json_option
def list_command(patterns: tuple[str, ...], as_json: bool, **filters: Any) -> None:
    """List models whose names match PATTERNS (shell wildcards)."""
    specs = [models[name].spec for name in list_models(*patterns, **filters)]
    if as_json:
        print_json([spec.to_json() for spec in specs])
        return
    rows = [(s.name, s.family, f"{s.params:,}", size(s.input_shape), s.classes, s.paper) for s in specs]
    print_table(("name", "family", "parameters", "input", "classes", "paper"), rows, right=(2, 4))


@click.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="MODEL...")
@click.option("--weights", default="imagenet", show_default=True, help="Which weights of a MODEL without a tag.")
@click.option("--cache-dir", metavar="DIR", help="Cache for files; those of the hub's client and of Keras by default.")
@noncommercial_option
@json_option
def fetch_command(names: tuple[str, ...], weights: str, cache_dir: str | None, as_json: bool) -> None:
    """Download published weights into the cache, and check them.

    MODEL is a name or a wildcard ("resnet*"), one with timm's tag (resnet50.a1_in1k), or hf://user/repository. One that
    fails does not stop the others.
    """
    from zoo.weights.fetching import fetch_weights, select_weights

    pairs = [pair for name in names for pair in select_weights(name, weights, cache_dir)]
    found, errors = {}, []
    for pair in pairs:
        try:
            fetched = fetch_weights(*pair, cache_dir)
            found[fetched.weights] = fetched
        except ZooError as error:
            errors.append(error)
    if as_json:
        print_json([each.to_json() for each in found.values()])
    elif found:
        rows = [(f.model, f.weights, f"{f.bytes / 1e6:,.1f}", f.license or "unknown", f.path) for f in found.values()]
        print_table(("model", "weights", "MB", "license", "path"), rows, right=(2,))
    if errors:
        raise errors[0]


@click.command("show")
@click.argument("name")
@click.option("--plot", metavar="FILE", help="Plot the architecture to a .png, .svg or .pdf file.")
@json_option
@click.pass_obj
def show_command(rooms: dict[str, Callable[[], list[str]]] | None, name: str, plot: str | None, as_json: bool) -> None:
    """Show the cost, options, published weights and stages of a model."""
    content = describe(name, (rooms or {}).get("formats", list)())
    if plot is not None:
        from zoo.plot import draw

        draw(content, Path(plot))
    if as_json:
        print_json(content)
        return
    _print_lines(content)
    _print_weights(content["weights"])
    _print_options(content["options"])
    _print_stages(content["stages"], content["gmacs"])
    if plot is not None:
        click.echo(f"\nPlot written to {plot}")


def _print_lines(content: dict[str, Any]) -> None:
    """Print the description's short values, one per line."""
    minimum = f", at least {size([content['min_size']] * 2)}" if content["min_size"] else ""
    memory = content["memory"]
    lines = {
        "name": content["name"],
        "family": content["family"],
        "tags": ", ".join(content["tags"]) or "none",
        "paper": content["paper"] or "none",
        "input": f"{size(content['input_shape'])}, {content['input_dtype']}{minimum}",
        "task": task_of(content["task"]).described,
        "classes": f"{content['classes']:,}",
        "parameters": f"{content['params']:,}",
        "GMACs": _plain(content["gmacs"]),
        "memory": f"{memory['weights_mib']:g} MiB of weights; {memory['inference_mib']:g} MiB for inference and "
        f"{memory['training_mib']:g} MiB for training with one input, float32",
        "preprocessing": _preprocessing(content),
        "formats": ", ".join(content["formats"]) or "none",
    }
    for key, text in lines.items():
        _print_line(key, text)
    for fmt, reason in content["unsupported"].items():
        _print_line("unsupported", f"{fmt}: {reason}")


def _print_line(key: str, text: str) -> None:
    first, *others = textwrap.wrap(text, WIDTH - KEY, break_long_words=False, break_on_hyphens=False) or [""]
    # click omits the style if the output is no terminal.
    click.echo(click.style(key.ljust(KEY), bold=True) + first)
    for line in others:
        click.echo(" " * KEY + line)


def _preprocessing(content: dict[str, Any]) -> str:
    if content["vocabulary"]:
        return f"token ids below {content['vocabulary']:,}, from the vocabulary of the data"
    config = content["preprocessing"]
    mean, std = (", ".join(f"{v:g}" for v in config[key]) for key in ("mean", "std"))
    resize = f"; {config['interpolation']}, crop {config['crop']:g}" if content["min_size"] else ""
    return f"(x - mean) / std; mean {mean}; std {std}{resize}"


def _plain(value: float) -> str:
    """Return four significant digits without an exponent."""
    text = f"{value:.12f}" if 0 < value < 1e-4 else f"{value:.4g}"
    return text.rstrip("0") if "." in text else text


def _print_weights(entries: list[dict[str, Any]]) -> None:
    """Print the published weights: what they reach at their own size, their license, and what checks a download."""
    if not entries:
        return
    click.echo()
    head = ("published weights", "top-1 %", "at", "MB", "license", "checked by")
    print_table(head, map(_weights_row, entries), right=(1, 3))
    click.echo(f"top-1: {', '.join(dict.fromkeys(w['reference'] for w in entries))}")


def _weights_row(entry: dict[str, Any]) -> tuple[str, ...]:
    # The hub sends the SHA-256 of a file with it.
    kinds = [kind for kind in ("sha256", "md5") if entry[kind]] or (["sha256"] if entry["url"] is None else ["–"])
    numbers = f"{entry['top1']:.2f}", size([entry["size"]] * 2), f"{entry['megabytes']:,.0f}"
    return entry["source"], *numbers, entry["license"] or "unknown", kinds[0]


def _print_options(options: dict[str, Any]) -> None:
    if options:
        click.echo()
        rows = [(name, repr(tuple(v) if isinstance(v, list) else v)) for name, v in options.items()]
        print_table(("option", "default"), rows)


def _print_stages(stages: list[dict[str, Any]], gmacs: float) -> None:
    """Print the table of stages; long lists of layers are wrapped to the width."""
    unit, per = macs_unit(gmacs)
    full = [(s["name"], size(s["output"]), f"{s['params']:,}", f"{s['gmacs'] * per:,.3f}") for s in stages]
    head = ("stage", "layers", "output", "parameters", unit)
    used = sum(max(len(head[i if i == 0 else i + 1]), *(len(row[i]) for row in full)) + 2 for i in range(4))
    rows = []
    for stage, (name, *rest) in zip(stages, full, strict=True):
        # A line break must not separate a count from its layer.
        text = layers_text(stage["layers"], ",\n").replace(" ", "\0").replace("\n", " ")
        first, *others = textwrap.wrap(text, WIDTH - used, break_long_words=False, break_on_hyphens=False)
        rows += [(name, first.replace("\0", " "), *rest), *(("", t.replace("\0", " "), "", "", "") for t in others)]
    click.echo()
    print_table(head, rows, right=(3, 4))
