"""The command `zoo debug-quantization`."""

from __future__ import annotations

from typing import Any

import click

import export as api
import training
from zoo.common.console import json_option, print_json, print_table
from zoo.common.errors import BadOption

PASSED = ("weights", "calibration")


@click.command("debug-quantization")
@click.argument("source", metavar="RUN|MODEL|FILE")
@click.option("--weights", metavar="NAME|PATH", help="Of a MODEL: imagenet, a path, or random for a trial.")
@click.option(
    "--calibration", metavar="PATH", help="Of a MODEL or FILE: a folder of images, a .npy, .npz, .csv or .txt file."
)
@click.option("--custom", multiple=True, metavar="MODULE:CLASS", help="Of a FILE: a layer of your own code, trusted.")
@click.option("--set", "options", multiple=True, metavar="OPTION=VALUE", help="Of a MODEL or FILE: an option.")
@click.option("--top", default=20, show_default=True, type=int, help="Layers to print.")
@json_option
def debug_quantization(source: str, options: tuple[str, ...], top: int, as_json: bool, **others: Any) -> None:
    """List the layers by the error that int8 adds, the worst first.

    One layer at a time is in int8 and all others in float32. Exclude the first ones: zoo export RUN --format
    tflite_int8:exclude=LAYER+LAYER.
    """
    if top < 1:
        raise BadOption(f"--top must be at least 1. Received: --top={top}")
    given = dict(map(training.parse_override, options))
    given |= {"custom": list(others["custom"])} if others["custom"] else {}
    found = api.debug_quantization(source, **{key: others[key] for key in PASSED}, options=given)
    if as_json:
        print_json([error.to_json() for error in found])
        return
    rows = [
        (e.layer, e.kind, f"{e.model_snr:.1f} dB", f"{e.layer_snr:.1f} dB", f"{e.weights:,}" if e.weights else "–")
        for e in found[:top]
    ]
    print_table(("layer", "class", "model SNR", "layer SNR", "int8 weights"), rows, right=(2, 3, 4))
    if len(found) > top:
        click.echo(f"{len(found) - top:,} layers with less error are left out; see --top.")
