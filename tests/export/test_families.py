"""Every family leaves as every format: converted for real, run in the real runtime, compared with Keras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import zoo
from export._format import formats

FLOAT = ("saved_model", "tflite", "onnx")
TINY = [name for name in zoo.names() if zoo.spec(name).params < 400_000]
LARGE = {family: [n for n in zoo.names(family=family) if n not in TINY] for family in zoo.families()}
FIRST = [names[0] for names in LARGE.values() if names]


@pytest.fixture(scope="module")
def converted(tmp_path_factory, python):
    """Convert networks in a child process; returns the folder that has one folder for each."""

    def run(names, wanted):
        folder = tmp_path_factory.mktemp("converted")
        script = Path(__file__).with_name("convert_families.py")
        process = python(script, folder, ",".join(wanted), *names)
        _, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        return folder

    return run


@pytest.fixture(scope="module")
def tiny(converted):
    """The small models in all formats."""
    return converted(TINY, formats.names(exclude="their_*"))


def off(folder, fmt):
    """How far the artifact is from its source, as a share of the largest logit."""
    raw, logits = np.load(folder / "raw.npy"), np.load(folder / "logits.npy")
    found = formats[fmt].load(folder / fmt / formats[fmt].file)(raw[:2])
    return np.abs(found - logits).max() / np.abs(logits).max()


@pytest.mark.parametrize("name", TINY)
def test_small_models_leave_as_every_format(name, tiny):
    """Artifacts are equal to the source within the bound of their format, or refused by the spec as by the format."""
    refused = dict(zoo.spec(name).unsupported)
    assert {path.stem for path in (tiny / name).glob("*.txt")} == refused.keys()
    for fmt in formats.names(exclude="their_*"):
        if fmt not in refused:
            assert off(tiny / name, fmt) <= formats[fmt].tolerance.relative, fmt


def test_a_changed_logit_is_seen(tiny):
    """The comparison fails if what it compares with is another function."""
    folder = tiny / TINY[0]
    logits = np.load(folder / "logits.npy")
    np.save(folder / "logits.npy", logits[::-1])
    try:
        assert off(folder, "tflite") > 1e-3
    finally:
        np.save(folder / "logits.npy", logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_first_variants_are_equal_as_float(name, converted):
    """The first full-size variant of each family is equal in TensorFlow, LiteRT and ONNX Runtime."""
    folder = converted([name], FLOAT) / name
    assert not list(folder.glob("*.txt"))
    for fmt in FLOAT:
        assert off(folder, fmt) <= formats[fmt].tolerance.relative, fmt
