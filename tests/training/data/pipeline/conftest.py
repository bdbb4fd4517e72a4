"""The ways in which a pipeline serves examples."""

from __future__ import annotations

import pytest


# Of streaming, a buffer smaller than the data is the harder case.
@pytest.fixture(params=["memory", pytest.param("stream", marks=pytest.mark.slow), "stream in a small buffer"])
def serving(request, monkeypatch):
    """Serve from memory, by streaming, and by streaming with a buffer smaller than the data."""
    from digit_batches import streaming

    if request.param != "memory":
        streaming(monkeypatch, 10_000 if request.param == "stream" else 100)
    return request.param
