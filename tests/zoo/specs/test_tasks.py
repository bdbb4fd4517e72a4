"""What shared code knows of tasks."""

from __future__ import annotations

import typing

import pytest

from export.core.manifest import Metadata
from training.runs.schemas import Result
from zoo.common.errors import BadOption
from zoo.specs.registry import models
from zoo.specs.tasks import INFERRED, TASKS, task_of


def test_names_are_known():
    """An unknown name is refused; without a name, the data decides."""
    assert task_of("regress").numbers
    assert task_of("") is INFERRED
    with pytest.raises(BadOption, match=r"task must be one of .* Received: task='regres'\. Did you mean 'regress'"):
        task_of("regres")


def test_schemas_have_all_tasks():
    """Runs have all tasks of data, artifacts all, and models those that are described."""
    of_models = {name for name, kind in TASKS.items() if kind.described}
    of_files = {"embed", "any", "binary", "numeric"}
    assert set(typing.get_args(typing.get_type_hints(Result)["task"])) == TASKS.keys() - of_files
    assert set(typing.get_args(typing.get_type_hints(Metadata)["task"])) == TASKS.keys()
    assert {models[name].spec.task for name in models.names()} == of_models
    assert {kind.model for kind in TASKS.values()} == of_models
    assert all(task_of(other).described for kind in TASKS.values() for other in (kind.headed, kind.headless) if other)


def test_raw_labels_are_counted():
    """Several labels at once have a column each, others one."""
    assert task_of("multilabel").columns(("a", "b", "c")) == 3
    assert task_of("classify").columns(("a", "b", "c")) == 1
