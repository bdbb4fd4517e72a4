"""Memory of this process."""

from __future__ import annotations

import gc
import resource
from pathlib import Path


def peak_memory() -> int:
    """Return the peak resident memory in bytes."""
    # On Linux, the value of getrusage starts with the peak of the parent process.
    peak = _proc_status("VmHWM")
    return peak if peak is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak_memory() -> int:
    """Reset the peak and return the resident memory in bytes."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_memory()
    return _proc_status("VmRSS") or peak_memory()


def _proc_status(key: str) -> int | None:
    """Return a value of /proc/self/status in bytes, None on a system without it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)
