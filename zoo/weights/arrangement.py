"""The arrays of another library's file under the keys of one of its models: renamed, and joined where ours are one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import np
from zoo.specs.published import NameMapping


def arranged(arrays: Mapping[str, Any], mapping: NameMapping, received: str) -> dict[str, Any]:
    """Return the arrays of a file under the keys that a name mapping describes.

    Args:
        arrays: values by key.
        mapping: the name mapping; see its `renamed` and `joined`.
        received: the user's argument, for messages.

    Raises:
        BadOption: two arrays have one key, or parts of a module do not fit each other.
    """
    found: dict[str, Any] = {}
    for key, array in arrays.items():
        name = _renamed(key, mapping)
        if name in found:
            raise BadOption(f"weights must have one array for each name. Received: {received} with two of {name}.")
        found[name] = array
    for rule in mapping.joined:
        found = _joined(found, *rule, received)
    return found


def _renamed(key: str, mapping: NameMapping) -> str:
    for pattern, replacement in mapping.renamed:
        key = re.sub(rf"^{pattern}", replacement, key)
    return key


def _joined(
    arrays: dict[str, Any], pattern: str, replacement: str, parts: tuple[str, ...], received: str
) -> dict[str, Any]:
    """Return the arrays with those of each whole set of parts joined along their outputs, the first axis."""
    rest, sets = dict(arrays), {}
    for key in arrays:
        module, _, variable = key.rpartition(".")
        match = re.fullmatch(pattern, module)
        if match:
            sets.setdefault((match.expand(replacement), variable), {})[match.groups()[-1]] = key
    for (module, variable), keys in sets.items():
        if set(keys) != set(parts):
            continue  # loading reports what is missing
        try:
            rest[f"{module}.{variable}"] = np.concatenate([rest.pop(keys[part]) for part in parts])
        except ValueError as error:
            raise BadOption(f"weights must fit together. Received: {received}: {', '.join(keys.values())}") from error
    return rest
