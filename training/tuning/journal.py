"""The journal of a study, which Optuna writes: checked before Optuna reads it, and freed of what a kill left.

Each line is a change, with its code (`optuna.storages.journal.JournalOperation`). Nothing is removed from a journal
that is damaged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

from zoo.reading.files import Refusal, read_bytes, reading
from zoo.reading.json_files import LINES_LIMIT, is_cut, parse_json

REFUSAL = Refusal("Expected the journal of a study", advice="Restore the file, or start another study.")
CREATE_STUDY, CREATE_TRIAL, SET_PARAM, SET_SYSTEM_ATTR = 0, 4, 5, 9
COMPLETE = 1  # the state of a trial
NUMBERS = ("intermediate_value", "param_value_internal")


class Change(TypedDict):
    """What every line has."""

    op_code: int
    worker_id: str


class OfStudy(Change):
    """A change of a study."""

    study_id: int


class OfTrial(Change):
    """A change of a trial."""

    trial_id: int


class NewStudy(Change):
    """The first line, which each process writes again."""

    study_name: str
    directions: list[int]


class StudyAttribute(OfStudy, total=False):
    """One of these is there."""

    user_attr: dict[str, Any]
    system_attr: dict[str, Any]


class NewTrial(OfStudy):
    """A new trial, without values yet."""

    datetime_start: str


class Parameter(OfTrial):
    """The value of a key; its distribution is JSON."""

    param_name: str
    param_value_internal: Any
    distribution: str


class RequiredState(OfTrial):
    """What every change of a state has."""

    state: int
    values: list | None


class State(RequiredState, total=False):
    """The state of a trial, and its values at the end."""

    datetime_start: str
    datetime_complete: str


class Intermediate(OfTrial):
    """The metric of an epoch."""

    step: int
    intermediate_value: Any


class UserAttribute(OfTrial):
    """A text about a trial."""

    user_attr: dict[str, Any]


class SystemAttribute(OfTrial):
    """What a sampler or pruner stores."""

    system_attr: dict[str, Any]


# The schema of each change that a study here makes.
SCHEMAS: dict[int, Any] = {
    CREATE_STUDY: NewStudy,
    2: StudyAttribute,
    3: StudyAttribute,
    CREATE_TRIAL: NewTrial,
    SET_PARAM: Parameter,
    6: State,
    7: Intermediate,
    8: UserAttribute,
    SET_SYSTEM_ATTR: SystemAttribute,
}


def repair_journal(path: Path, name: str, keys: Sequence[str]) -> None:
    """Remove what a killed process left at the end of a journal: a line that is cut off, and a trial without values.

    Such a trial is drawn again, with the same values.

    Args:
        path: the journal; it may be missing.
        name: of the study.
        keys: what each trial has a value of.

    Raises:
        RunError: the journal is damaged, and stays as it is.
    """
    if not os.path.lexists(path):
        return
    with reading(path, REFUSAL):
        content = read_bytes(path, LINES_LIMIT)
        changes = list(_changes(content))
        kept = _without_begun([change for _, change in changes], len(keys))
        _check_whole([change for _, change in changes[:kept]], name, keys)
    end = changes[kept - 1][0] if kept else 0
    if end < len(content):
        os.truncate(path, end)


def _changes(content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the place behind each whole line, and its change; raises ValueError for a damaged one."""
    end = 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        end += len(line)
        last = end == len(content)
        try:
            change = _change(line)
        except json.JSONDecodeError as error:
            if last and is_cut(error):
                return
            raise ValueError(f"line {number}: {error}") from error
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not line.endswith(b"\n"):
            return  # cut off before the end of the line
        yield end, change


def _change(line: bytes) -> dict[str, Any]:
    change = parse_json(line, Change, nan=True)
    code = change["op_code"]
    if code not in SCHEMAS:
        raise ValueError(f"op_code must be one of {', '.join(map(str, SCHEMAS))}, not {code}")
    change = parse_json(line, SCHEMAS[code], nan=True)
    values = change.get("values") or []
    numbers = [*values, *(change[key] for key in NUMBERS if key in change)]
    if not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"a value must be a number, not {numbers}")
    if change.get("state") == COMPLETE and len(values) != 1:
        raise ValueError(f"a completed trial must have one value, not {len(values)}")
    return change


def _check_whole(changes: Sequence[dict[str, Any]], name: str, keys: Sequence[str]) -> None:
    """Raise ValueError for another study, and for a trial that lacks a value: a line is missing."""
    # Each process that opens the study states it again.
    studies = {change["study_name"] for change in changes if change["op_code"] == CREATE_STUDY}
    if changes and (studies != {name} or changes[0]["op_code"] != CREATE_STUDY):
        raise ValueError(f"it must begin with the study {name!r}, and have no other one")
    drawn: dict[int, set[str]] = {}
    for change in changes:
        if change["op_code"] == CREATE_TRIAL:
            drawn[len(drawn)] = set()
        elif change["op_code"] == SET_PARAM:
            drawn.setdefault(change["trial_id"], set()).add(change["param_name"])
    for trial, found in drawn.items():
        if found != {*keys}:
            raise ValueError(f"trial {trial} must have values of {', '.join(keys)}, not {', '.join(sorted(found))}")


def _without_begun(changes: Sequence[dict[str, Any]], keys: int) -> int:
    """Return the number of changes without those of a last trial that has fewer than all values."""
    begun = next((i for i in range(len(changes) - 1, -1, -1) if changes[i]["op_code"] == CREATE_TRIAL), None)
    if begun is None:
        return len(changes)
    codes = [change["op_code"] for change in changes[begun + 1 :]]
    whole = codes.count(SET_PARAM) >= keys or any(code not in (SET_PARAM, SET_SYSTEM_ATTR) for code in codes)
    return len(changes) if whole else begun
