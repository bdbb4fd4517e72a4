"""`zoo export` prints what its table leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.commands import _notes
from export.verification.artifact import Artifact

PARITY = {"n": 1000, "metric": "accuracy", "source_accuracy": 0.4186}
SOURCE = {"precision": "mixed_bfloat16", "split": "test", "examples": 1996, "metrics": {"accuracy": 0.4651}}


@pytest.mark.parametrize(
    ("source", "parity", "notes"),
    [
        (
            SOURCE,
            PARITY,
            [
                "Compared on 1,000 of 1,996 test examples.",
                "Trained in mixed_bfloat16 with accuracy 0.4651 on 1,996 test examples; exported in float32, with "
                "accuracy 0.4186 on 1,000.",
            ],
        ),
        ({**SOURCE, "precision": "float32", "examples": 1000}, PARITY, []),
        ({**SOURCE, "examples": 1000}, {**PARITY, "source_accuracy": None}, []),
        ({"model": "resnet50", "weights": "imagenet"}, PARITY, []),
    ],
)
def test_notes(source, parity, notes):
    """The examples that were not compared, and both accuracies where training had another precision."""
    artifact = Artifact(Path("model.onnx"), {"source": source, "parity": parity})
    assert list(_notes(artifact)) == notes
