"""JSON from outside: limits of size and depth, no repeated keys, no NaN, and the types that a schema names."""

from __future__ import annotations

import collections
import json
import math
import os
import re
from typing import Any

from zoo.reading.files import PLAIN, Refusal, read_bytes, reading
from zoo.reading.schema import Mismatch, fit

LIMIT, LINES_LIMIT = 64 << 20, 512 << 20  # bytes
DEPTH = 64  # brackets in brackets
DIGITS = 20  # of a whole number: 64 bits and a sign
# Escapes of halves of characters, which come in pairs.
HALF = re.compile(r"\\u[dD][89a-fA-F]")
# What is left of a line from the place where it cannot be read, if it was cut off there.
CUT = re.compile(r'"(?:[^"\\]|\\.)*\\?|[\w.+-]*', re.DOTALL)


def read_json(path: str | os.PathLike[str], schema: Any = Any, refusal: Refusal = PLAIN, *, limit: int = LIMIT) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        schema: the type that the content must have: see `zoo.reading.schema.fit`.
        refusal: the error.
        limit: the most bytes.

    Raises:
        ZooError: that of `refusal`: the file is missing, no regular file, too large or no JSON, or a key is missing or
            of another type; the message names the file and the key.
    """
    with reading(path, refusal.of_kind("Expected a readable JSON file")):
        return parse_json(read_bytes(path, limit), schema)


def parse_json(text: str | bytes, schema: Any = Any, depth: int = DEPTH, *, nan: bool = False) -> Any:
    """Return the content of a JSON text; raises ValueError with the reason.

    Args:
        text: the text.
        schema: the type that the content must have.
        depth: the most brackets in brackets.
        nan: whether numbers may be NaN or infinite, as other programs write them.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark")
    try:
        content = (_NAN_DECODER if nan else _DECODER).decode(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {depth} levels") from None
    check_depth(content, depth)
    if HALF.search(text):
        _check_texts(content)
    try:
        return fit(content, schema)
    except Mismatch as error:
        raise ValueError(str(error)) from error


def read_json_lines(path: str | os.PathLike[str], schema: Any = dict) -> list[Any]:
    """Return the rows of a file of JSON lines; [] if there is none. Lines that a killed process cut off are left out.

    Raises:
        RunError: another line is damaged, or a key is missing or of another type; the message names the line.
    """
    if not os.path.lexists(path):
        return []
    rows = []
    with reading(path, Refusal("Expected a readable file of JSON lines")):
        for number, line in enumerate(read_bytes(path, LINES_LIMIT).splitlines(), start=1):
            try:
                rows.append(parse_json(line, schema))
            except json.JSONDecodeError as error:
                if not is_cut(error):
                    raise ValueError(f"line {number}: {error}") from error
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return rows


def is_cut(error: json.JSONDecodeError) -> bool:
    """Return whether a line that cannot be read was cut off, as by a killed process."""
    return CUT.fullmatch(error.doc, error.pos) is not None


def _check_texts(content: Any) -> None:
    """Raise ValueError for a text with half of a character, which could be neither printed nor written."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a text has half of a character, {error.object[error.start]!r}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, or raise ValueError if a key occurs twice: readers differ in which they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        repeated = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {repeated[:100]!r} occurs twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits, and at most {DIGITS - 1} are read")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_whole, parse_float=_finite, parse_constant=_no_number)
_NAN_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_whole)


def check_depth(content: Any, most: int = DEPTH) -> None:
    """Raise ValueError for brackets that are nested too deep, which later recursions could not follow."""
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > most + 1:
            raise ValueError(f"it is nested deeper than {most} levels")
        level = [
            inner
            for value in level
            if type(value) in (dict, list)
            for inner in (value.values() if type(value) is dict else value)
            if type(inner) in (dict, list)
        ]
