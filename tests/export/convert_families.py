"""Convert networks of the registry without a run: `python convert_families.py FOLDER FORMATS NAME...`.

Converters leak and stay loaded, so that tests start this as a process of its own. For each name the folder NAME then
has raw.npy (raw values), logits.npy (what Keras gives for the first two), and the artifacts by format, or FORMAT.txt
with the error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from export._format import formats
from export._source import Source
from zoo._errors import ZooError

PIXELS = zoo.Preprocessing((127.5,), (60.0,))


def network_of(name: str, draw: np.random.Generator) -> Any:
    """Return the network with random weights, statistics and offsets that are not trivial."""
    network = zoo.get(name)
    for variable in network.weights:
        if variable.name in ("moving_mean", "beta", "bias"):
            variable.assign(draw.uniform(-0.1, 0.1, variable.shape))
        elif variable.name in ("moving_variance", "gamma"):
            variable.assign(draw.uniform(0.8, 1.2, variable.shape))
    return network


def convert(name: str, wanted: list[str], folder: Path) -> None:
    """Write the network of a name in each format."""
    draw = np.random.default_rng(0)
    network = network_of(name, draw)
    raw = draw.uniform(0, 255, (32, *network.input_shape[1:])).astype("float32")
    source = Source(network, PIXELS, [str(i) for i in range(network.output_shape[-1])], lambda: raw, folder / "shared")
    np.save(folder / "raw.npy", raw)
    np.save(folder / "logits.npy", np.asarray(source.model(raw[:2])))
    for fmt in wanted:
        (folder / fmt).mkdir()
        try:
            formats[fmt].write(source, folder / fmt / formats[fmt].file)
        except ZooError as error:
            (folder / f"{fmt}.txt").write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    place, chosen, *names = sys.argv[1:]
    for one in names:
        (Path(place) / one).mkdir(parents=True)
        convert(one, chosen.split(","), Path(place) / one)
