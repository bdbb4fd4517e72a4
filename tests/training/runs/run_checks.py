"""What tests of run directories look at: the names of their files, and errors of one line."""

from __future__ import annotations

import contextlib

import pytest

from training import DataConfig, Recipe
from zoo.common.errors import RunError

RECIPE = Recipe("test", data=DataConfig("digits", batch_size=32))


@contextlib.contextmanager
def refused(match, error=RunError):
    """Expect an error with one line."""
    with pytest.raises(error, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def names(folder):
    """Return the names of all files and folders below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
