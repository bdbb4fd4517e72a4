"""The journal of a study: whole ones pass, what a kill left is removed, and damage is one line and removes nothing."""

from __future__ import annotations

import json
import math
import os

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from training.tuning.journal import SCHEMAS, repair_journal
from zoo.common.errors import RunError

NAME, KEYS = "study", ["seed", "rate"]
SPACES = {"seed": optuna.distributions.IntDistribution(1, 9), "rate": optuna.distributions.FloatDistribution(0, 1)}


def opened(path):
    """Open a study of Optuna, or make one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True)


@pytest.fixture
def journal(tmp_path):
    """A journal with a trial of each state, and what else a study writes."""
    study, path = opened(tmp_path / "trials.log"), tmp_path / "trials.log"
    for number, state in enumerate(("COMPLETE", "PRUNED", "FAIL", "RUNNING")):
        trial = study.ask(SPACES)
        trial.report(math.nan if number == 1 else 0.5, 1)
        if state == "FAIL":
            trial.set_user_attr("failed", "é")
        if state == "COMPLETE":
            study.tell(trial, 0.5)
        elif state != "RUNNING":
            study.tell(trial, state=optuna.trial.TrialState[state])
    study._storage.set_trial_system_attr(trial._trial_id, "rung", 1)
    return path


def refusal(path):
    """The message about a journal, "" if it passes; one that is refused stays as it is."""
    before = path.read_bytes()
    try:
        repair_journal(path, NAME, KEYS)
    except RunError as error:
        assert path.read_bytes() == before
        message = str(error)
        assert message.startswith(f"Expected the journal of a study. Received: {path}: ")
        assert "\n" not in message
        return message
    return ""


def test_whole_journals_pass(journal, tmp_path):
    """What Optuna writes has these schemas, NaN included; a missing or empty journal is a new study."""
    opened(journal)  # by another process, which states the study again
    before = journal.read_bytes()
    assert refusal(journal) == ""
    assert journal.read_bytes() == before
    codes = {json.loads(line)["op_code"] for line in before.splitlines()}
    assert codes - SCHEMAS.keys() == set()
    repair_journal(tmp_path / "none", NAME, KEYS)
    (tmp_path / "empty").touch()
    repair_journal(tmp_path / "empty", NAME, KEYS)


def test_what_a_kill_left_is_removed(journal):
    """At many places behind the study: a cut line, and a trial whose values were not drawn; Optuna reads the rest."""
    whole = journal.read_bytes()
    places = [0, *(end + 1 for end, byte in enumerate(whole) if byte == 10)]
    began = [place for place in places[:-1] if json.loads(whole[place:].splitlines()[0])["op_code"] == 4]
    for cut in range(places[1], len(whole), 7):
        journal.write_bytes(whole[:cut])
        assert refusal(journal) == ""
        left = journal.read_bytes()
        assert whole.startswith(left)
        assert len(left) in places
        last = max((place for place in began if place < cut), default=cut)
        drawn = whole[last:cut].count(b'"param_name"') == 2 and whole[last : len(left)].count(b'"param_name"') == 2
        assert drawn or len(left) <= last
    journal.write_bytes(whole[: began[-1] + 20])
    repair_journal(journal, NAME, KEYS)
    assert [trial.number for trial in opened(journal).trials] == [0, 1, 2]


def edited(line, **changes):
    """A line with other entries; None leaves one out."""
    entry = {**json.loads(line), **changes}
    return json.dumps({key: value for key, value in entry.items() if value is not None}).encode() + b"\n"


def test_damage_is_one_line(journal):
    """Other types, values and codes, missing lines, other text and sizes; the file stays as it is."""
    lines = journal.read_bytes().splitlines(keepends=True)
    param = next(i for i, line in enumerate(lines) if b"param_name" in line)
    ended = next(i for i, line in enumerate(lines) if b'"values":[' in line)
    cases = {
        "line 1: op_code must be one of": {0: edited(lines[0], op_code=1)},
        "line 1: study_name is missing": {0: edited(lines[0], study_name=None)},
        "begin with the study": {0: edited(lines[0], study_name="other")},
        f"line {param + 1}: trial_id must be a whole number": {param: edited(lines[param], trial_id="0")},
        "a value must be a number": {param: edited(lines[param], param_value_internal="x")},
        "must have one value": {ended: edited(lines[ended], values=[])},
        "trial 0 must have values of seed, rate, not rate": {param: b""},
        f"line {param + 2}: ": {param + 1: lines[param + 1][:20] + b"\xff" + lines[param + 1][21:]},
        f"line {param + 1}: it is nested deeper": {param: b"[" * 5000 + b"\n"},
        "line 1: Expecting value": dict.fromkeys(range(1, len(lines)), b"") | {0: b"text without an end of the line"},
    }
    for reason, changes in cases.items():
        journal.write_bytes(b"".join(changes.get(i, line) for i, line in enumerate(lines)))
        assert reason in refusal(journal), reason
    os.truncate(journal, 1 << 40)
    with pytest.raises(RunError, match="1,099,511,627,776 bytes"):
        repair_journal(journal, NAME, KEYS)
