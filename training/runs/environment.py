"""The machine and the installed versions of a run."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Return the machine and the installed versions, JSON-safe."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in (
        "tensorflow",
        "keras",
        "numpy",
        "ai-edge-litert",
        "litert-quantizer",
        "onnx",
        "onnxruntime",
        "tf2onnx",
    ):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def processor() -> str:
    """Return the name of the processor, from Linux or from Python."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
