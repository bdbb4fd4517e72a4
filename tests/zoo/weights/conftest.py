"""Let the tests of this folder import its modules `weights_cases`, `keras_cases`, `hub_session` and `torch_state`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("", "hub", "pytorch")]
