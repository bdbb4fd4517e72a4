"""What the processor can compute, as Linux reports it."""

from __future__ import annotations

import functools
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Products of unsigned and signed bytes that are summed without saturation.
BYTE_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8"}


@functools.cache
def processor_flags() -> frozenset[str]:
    """Return the names of the instruction sets; an empty set where the system does not list them."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 in hardware; otherwise it is emulated and slow."""
    return bool(processor_flags() & {"avx512_bf16", "amx_bf16"})


def saturates_int8() -> bool:
    """Return whether fast products of unsigned and signed bytes saturate: on x86 with AVX2 and without VNNI."""
    return "avx2" in processor_flags() and not processor_flags() & BYTE_PRODUCTS
