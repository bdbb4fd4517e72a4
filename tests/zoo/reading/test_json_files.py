"""JSON from outside has limits of size, depth and digits, and the types of a schema; damage is one line."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import pytest

from zoo.common.errors import DataError, RunError
from zoo.reading.files import Refusal
from zoo.reading.json_files import DEPTH, parse_json, read_json, read_json_lines
from zoo.reading.schema import Mismatch, fit


class Inner(TypedDict):
    """A nested object."""

    value: float


class Outer(TypedDict):
    """A document with required keys."""

    version: int
    inner: Inner


class Document(Outer, total=False):
    """A document with keys that it may lack."""

    names: list[str] | None
    kind: Literal["a", "b"]
    counts: dict[str, int]
    row: tuple[str, int]


GOOD = '{"version": 1, "inner": {"value": 2}, "other": [true]}'
# (content, part of the reason)
BAD = [
    (b"", "Expecting value"),
    (b"{", "Expecting property name"),
    (b'{"version": 1}', "inner is missing"),
    (b'{"version": 1, "inner": {}}', "inner.value is missing"),
    (b'{"version": "1", "inner": {"value": 2}}', "version must be a whole number, not '1'"),
    (b'{"version": true, "inner": {"value": 2}}', "version must be a whole number, not True"),
    (b'{"version": 1.0, "inner": {"value": 2}}', "version must be a whole number, not 1.0"),
    (b'{"version": 1, "inner": []}', "inner must be a mapping of keys, not a list"),
    (b'{"version": 1, "inner": {"value": null}}', "inner.value must be a number, not None"),
    (b'{"version": 1, "inner": {"value": NaN}}', "NaN is no number"),
    (b'{"version": 1, "inner": {"value": -Infinity}}', "-Infinity is no number"),
    (b'{"version": 1, "inner": {"value": 1e999}}', "the number 1e999 is too large"),
    (b'{"version": 1, "version": 2, "inner": {"value": 2}}', "the key 'version' occurs twice"),
    (b'{"version": 1, "inner": {"value": 2}, "names": ["x", 1]}', r"names\[1\] must be a text, not 1"),
    (b'{"version": 1, "inner": {"value": 2}, "names": 3}', "names must be a list or null, not 3"),
    (b'{"version": 1, "inner": {"value": 2}, "kind": "c"}', "kind must be one of a, b, not 'c'"),
    (b'{"version": 1, "inner": {"value": 2}, "counts": {"x": 0.5}}', "counts.x must be a whole number"),
    (b'{"version": 1, "inner": {"value": 2}, "row": ["x"]}', "row must be a list of 2 values"),
    (b"[1]", "the content must be a mapping"),
    (b"[" * 3000 + b"]" * 3000, "nested deeper than"),
    (b"[" * 900 + b"]" * 900, "nested deeper than"),
    (b'{"a":' * 3000 + b"1" + b"}" * 3000, "nested deeper than"),
    (b"1" * 5000, "a number has 5,000 digits"),
    (b'{"version": ' + b"9" * 30 + b"}", "a number has 30 digits"),
    (GOOD.encode().replace(b"other", b"oth\xffr"), "not UTF-8 at byte"),
    (b"\xef\xbb\xbf" + GOOD.encode(), "byte order mark"),
    (GOOD.encode("utf-16"), "not UTF-8"),
    (b"\x00" * 100, "Expecting value"),
    (b'{"version": 1, "a\\ud800": 2}', "half of a character"),
]


def test_content_of_the_schema_is_returned():
    """Whole numbers become floats where these are wanted; other keys pass."""
    found = parse_json(GOOD, Document)
    assert found == {"version": 1, "inner": {"value": 2.0}, "other": [True]}
    assert isinstance(found["inner"]["value"], float)
    assert parse_json("[" * DEPTH + "]" * DEPTH, list)
    assert fit({"a": [1]}, Any) == {"a": [1]}


@pytest.mark.parametrize(("content", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_other_content_is_one_line(tmp_path, content, reason):
    """The line names the file, and the key or the place."""
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_json(tmp_path / "file.json", Document, Refusal(error=DataError))
    assert str(caught.value).startswith(f"Expected a readable JSON file. Received: {tmp_path / 'file.json'}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_repeated_keys_are_found_at_once():
    """The last of many keys repeats the one before it: one pass over them, not one for each."""
    keys = [*range(200_000), 199_999]
    with pytest.raises(ValueError, match="the key '199999' occurs twice"):
        parse_json("{" + ",".join(f'"{key}":0' for key in keys) + "}")


def test_pairs_of_escapes_are_characters():
    """The control of halves: two of them are one character."""
    assert parse_json(r'{"a": "\ud83d\ude00"}') == {"a": "\U0001f600"}


def test_large_files_are_not_read(tmp_path):
    """A sparse file of a gigabyte is refused by its size."""
    with open(tmp_path / "file.json", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(RunError, match="1,073,741,824 bytes"):
        read_json(tmp_path / "file.json")


def test_mismatch_has_the_key():
    """The most specific reason of a union is given."""
    with pytest.raises(Mismatch, match=r"inner\.value") as caught:
        fit({"inner": {"value": "x"}}, dict[str, Inner | None])
    assert caught.value.key == "inner.value"


def test_lines_that_were_cut_off_are_left_out(tmp_path):
    """At every place of the last line, and of one before it; other damage is an error with its line."""
    path, line = tmp_path / "rows.jsonl", b'{"version": 12, "inner": {"value": 1.5}, "names": ["a\\"b", null, true]}'
    assert read_json_lines(path) == []
    for end in range(len(line)):
        path.write_bytes(b'{"version": 1}\n' + line[:end])
        assert read_json_lines(path) == [{"version": 1}], line[:end]
        path.write_bytes(line[:end] + b'\n{"version": 1}\n')
        assert read_json_lines(path) == [{"version": 1}], line[:end]
    for bad, reason in ((b'{"version"; 1}', "Expecting ':'"), (b'{"a": "\xff"}', "UTF-8"), (b"[1]", "mapping")):
        path.write_bytes(b'{"version": 1}\n' + bad + b'\n{"version": 1}\n')
        with pytest.raises(RunError, match=f"line 2: .*{reason}"):
            read_json_lines(path)
