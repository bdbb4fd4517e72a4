"""The tasks: what kinds of predictions there are, and in what they differ. No other module tells tasks by their names.

Rooms that do something of their own for each task have a table by task, such as the losses of `training.learning.tasks`
and the measures of `export.verification.measures`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from zoo.common.errors import BadOption, did_you_mean

CLASSIFY, MULTILABEL, REGRESS, MULTITASK = "classify", "multilabel", "regress", "multitask"
ANY, BINARY, NUMERIC = "any", "binary", "numeric"


@dataclasses.dataclass(frozen=True)
class TaskKind:
    """A kind of predictions.

    Args:
        described: what a model predicts, in words; "" for a kind of data, which models of another task serve.
        model: the task of these models.
        headless: the task of a model without its classes; "" if it has none.
        headed: the task of a model that is given classes; "" for its own.
        output: the name of an artifact's output; "" for several.
        unit: what is predicted for, in the plural.
        classes: outputs are logits of classes, one of which is right.
        indexed: the label of an example is the index of its class.
        marks: the labels of an example say of each whether it applies.
        numbers: the labels of an example are numbers in the units of the data.
        several: an example has several targets, each of a task of its own.
        vectors: outputs are vectors for comparison, without labels.
        tokens: there is a prediction for each token.
        generates: tokens are generated one after the other, by an encoder and a decoder.
        stated: a user may state it of a model that does not show it.
        compared: a user's labels have the shape of the outputs, and are compared with them.
    """

    described: str = ""
    model: str = CLASSIFY
    headless: str = ""
    headed: str = ""
    output: str = "logits"
    unit: str = "examples"
    classes: bool = False
    indexed: bool = False
    marks: bool = False
    numbers: bool = False
    several: bool = False
    vectors: bool = False
    tokens: bool = False
    generates: bool = False
    stated: bool = False
    compared: bool = False

    @property
    def mixes(self) -> bool:
        """Whether the labels of two examples can be mixed."""
        return self.indexed or self.marks

    @property
    def direct(self) -> bool:
        """Whether labels are the targets of the loss as they are."""
        return self.marks or self.numbers

    @property
    def single(self) -> bool:
        """Whether a column of a table is a whole target."""
        return self.indexed or self.numbers

    def columns(self, labels: Sequence[str]) -> int:
        """Return the number of raw labels of an example, by the names of all labels."""
        return len(labels) if self.marks else 1


TASKS = {
    CLASSIFY: TaskKind("one prediction per input", headless="embed", classes=True, indexed=True, stated=True),
    REGRESS: TaskKind(output="values", numbers=True),
    MULTILABEL: TaskKind(marks=True),
    MULTITASK: TaskKind(output="", several=True),
    "tag": TaskKind("one prediction per token", model="tag", unit="tokens", classes=True, tokens=True),
    "generate": TaskKind("sequence-to-sequence", model="generate", output="tokens", tokens=True, generates=True),
    "embed": TaskKind("one vector per input", model="embed", headed=CLASSIFY, output="embedding", vectors=True),
    # Outputs of unknown meaning and any shape, of a user's model.
    ANY: TaskKind(output="output", stated=True),
    # Probabilities that labels apply, and numbers, of a user's model.
    BINARY: TaskKind(output="output", stated=True, compared=True),
    NUMERIC: TaskKind(output="output", stated=True, compared=True),
}
# The task of a target that the data decides.
INFERRED = TaskKind()


def task_of(name: str) -> TaskKind:
    """Return what is known of a task by its name, "" for one that the data decides; raises BadOption."""
    if not name:
        return INFERRED
    if name not in TASKS:
        raise BadOption(f"task must be one of {', '.join(TASKS)}. Received: task={name!r}. {did_you_mean(name, TASKS)}")
    return TASKS[name]
