"""The message of an error, as a user reads it."""

from __future__ import annotations

import pytest

from zoo.common.errors import ZooError


@pytest.fixture(scope="session")
def message():
    """The text of a ZooError, which is one line with the received value: `message(error)` of `pytest.raises`."""

    def text_of(error):
        text = str(error.value)
        assert isinstance(error.value, ZooError)
        assert "Received: " in text
        assert "\n" not in text
        return text

    return text_of
