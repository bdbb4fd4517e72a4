"""Let the tests of this folder import its modules `conformance_cases` and `vit_cases`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
