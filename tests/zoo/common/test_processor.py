"""What the processor can compute is read from the list of the system."""

from __future__ import annotations

import pytest

from zoo.common import processor

LISTS = {
    "VNNI": ("fma avx2 avx512f avx512_vnni avx512_bf16", True, False),
    "AVX2 alone": ("fma avx avx2", False, True),
    "AVX-512 without VNNI": ("avx2 avx512f", False, True),
    "AVX-VNNI": ("avx2 avx_vnni", False, False),
    "AMX": ("avx2 amx_int8 amx_bf16", True, False),
    "no list": (None, False, False),
    "ARM": ("fp asimd", False, False),
}


@pytest.fixture(autouse=True)
def forget():
    """Read the list anew in each test, and after the last one."""
    processor.processor_flags.cache_clear()
    yield
    processor.processor_flags.cache_clear()


@pytest.mark.parametrize(("flags", "bfloat16", "saturates"), LISTS.values(), ids=LISTS)
def test_flags_decide(flags, bfloat16, saturates, tmp_path, monkeypatch):
    """The first processor's flags decide; without a list nothing is assumed."""
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: x\n")
    assert processor.has_bfloat16() is bfloat16
    assert processor.saturates_int8() is saturates
