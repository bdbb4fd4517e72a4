"""The content of a report; tests of this folder may import its module `report_content`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def content():
    """The content of a finished run, for one test to change."""
    from report_content import content_of_a_run

    return content_of_a_run()
