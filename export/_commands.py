"""`zoo formats`, `zoo export`, `zoo verify`, `zoo report`."""

from __future__ import annotations
