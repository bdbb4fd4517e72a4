"""A table with two targets, a class and a number, and a recipe that learns both."""

from __future__ import annotations

import numpy as np

from training import DataConfig, ModelConfig, Recipe

COUNT = 240
TARGETS = ("species", "Body mass (g)")
# Without measurements of steps.
QUIET = {"log.every": 0, "log.misclassified": 0}


def write(root, name="table.csv", gaps=True):
    """Write a table whose species follows from one column, and whose mass follows from another; returns its path."""
    draw = np.random.default_rng(0)
    kinds, x1, x2 = draw.integers(0, 3, COUNT), draw.normal(size=COUNT), draw.normal(size=COUNT)
    rows = ["wing,bill,species,Body mass (g)"]
    for i in range(COUNT):
        species = "NA" if gaps and i % 12 == 5 else ("Adelie", "Chinstrap", "Gentoo")[kinds[i]]
        mass = "" if gaps and i % 10 == 5 else f"{4000 + 500 * x2[i] + 50 * x1[i]:.1f}"
        rows.append(f"{x1[i] + 6 * kinds[i]:.4f},{x2[i]:.4f},{species},{mass}")
    path = root / name
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def recipe(path, **changes):
    """Return a recipe for both targets."""
    data = DataConfig("table", path=str(path), batch_size=32, target=TARGETS)
    return Recipe("both", ModelConfig("mlp_tiny"), data, epochs=16).override(**{**QUIET, **changes})
