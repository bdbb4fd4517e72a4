"""Makes the modules of `made_data` importable; data that several files test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "made_data"))


@pytest.fixture
def data():
    """Register small data of a task; a second call changes its content."""
    from small_texts import put, remove

    yield put
    remove()
