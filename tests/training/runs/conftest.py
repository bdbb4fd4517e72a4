"""Makes `run_checks` importable; a new run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def run(tmp_path):
    """A new run directory."""
    from run_checks import RECIPE

    from training import Run

    return Run.create(RECIPE, tmp_path / "runs" / "one")
