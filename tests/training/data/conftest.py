"""Makes the modules of `made_data` and `small_images` importable; data that several files test."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "made_data"))
sys.path.insert(0, str(Path(__file__).parents[1] / "common"))


@pytest.fixture
def offline(monkeypatch):
    """Disable name resolution and proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def data():
    """Register small data of a task; a second call changes its content."""
    from small_texts import put, remove

    yield put
    remove()


@pytest.fixture
def people(tmp_path):
    """A table of 60 rows: a number with gaps, a category, and a target that depends on both."""
    from small_tables import written

    draw = np.random.default_rng(0)
    rows = []
    for i in range(60):
        age, town = draw.normal(40, 10), "abc"[draw.integers(3)]
        label = "yes" if age + 10 * (town == "a") > 42 else "no"
        rows.append(("" if i % 9 == 0 else f"{age:.3f}", town, label))
    return written(tmp_path / "people.csv", ("age", "town", "outcome"), rows)
