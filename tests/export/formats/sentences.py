"""English sentences that lie in installed packages: about data, about Python, and of licenses."""

from __future__ import annotations

import pydoc_data.topics
import re
from pathlib import Path

import sklearn

SHORTEST, LONGEST = 30, 250


def datasets_described() -> list[str]:
    """Descriptions of scikit-learn's datasets."""
    files = (Path(sklearn.__file__).parent / "datasets" / "descr").glob("*.rst")
    found = split("\n".join(path.read_text(encoding="utf-8") for path in sorted(files)))
    assert len(found) > 100
    return found


def language_described() -> list[str]:
    """The reference of Python."""
    return split("\n".join(pydoc_data.topics.topics.values()))


def licenses() -> list[str]:
    """Licenses of installed packages."""
    files = Path(sklearn.__file__).parents[1].glob("*.dist-info/**/LICENSE*")
    return split("\n".join(path.read_text(errors="ignore") for path in sorted(files) if path.is_file()))


def split(text: str) -> list[str]:
    """Return the sentences of a text, each once."""
    plain = " ".join(re.sub(r"[-=:*`|_]{2,}", " ", text).split())
    parts = (part.strip() for part in re.split(r"(?<=[.!?]) ", plain))
    return list(dict.fromkeys(part for part in parts if SHORTEST < len(part) < LONGEST and part[0].isalpha()))
