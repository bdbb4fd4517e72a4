"""Several targets of one table: outputs by name, tasks, columns of flags, and options that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from two_targets import COUNT, TARGETS, recipe, write

from training import DataConfig, Recipe
from training.data.outputs import identifiers
from training.data.readers.loading import load_dataset
from zoo.common.errors import BadOption, DataError


def load(path, **options):
    """Return the dataset of a table."""
    return load_dataset(DataConfig("table", path=str(path), **{"target": TARGETS, **options}))


def test_columns_become_outputs(tmp_path):
    """Each target is inferred in a line; a row without one of them teaches the other, one without any is left out."""
    dataset = load(write(tmp_path))
    assert dataset.task == "multitask"
    assert dataset.labels == ("species: Adelie", "species: Chinstrap", "species: Gentoo", "Body mass (g)")
    assert [(one.name, one.task) for one in dataset.outputs] == [("species", "classify"), ("Body_mass_g", "regress")]
    both, gone = {i for i in range(COUNT) if i % 12 == 5 and i % 10 == 5}, len(range(5, COUNT, 12))
    assert sum(split.count for split in dataset.splits.values()) == COUNT - len(both)
    said = [
        f"target 'species': classification, 3 classes; missing in {gone - len(both)} rows, which teach the other "
        "targets only",
        "target 'Body mass (g)': regression, a number; data.tasks.Body mass (g)=classify makes it classes; its output "
        f"is Body_mass_g; missing in {24 - len(both)} rows, which teach the other targets only",
        f"Left out: {len(both)} rows without a target, 'NA' in {gone}; data.missing lists what counts as missing",
    ]
    assert [note for note in dataset.notes if "target" in note] == said
    # Splits are stratified by the species.
    y = np.concatenate([np.stack(list(split.labels())) for split in dataset.splits.values()])
    parts = {name: np.stack(list(split.labels()))[:, 0] for name, split in dataset.splits.items()}
    for number in range(3):
        share = (y[:, 0] == number).sum()
        assert abs((parts["train"] == number).sum() - 0.8 * share) <= 1


def test_options_of_targets(tmp_path):
    """Tasks are set by target, or for all of them; wrong names and values are refused in a line."""
    path = write(tmp_path, gaps=False)
    text = path.read_text().replace("wing,bill,", "wing,bill,", 1).splitlines()
    path.write_text(
        "\n".join(
            [text[0] + ",ring,tags", *(f"{row},{i % 3},{'x|y' if i % 2 else 'y'}" for i, row in enumerate(text[1:]))]
        )
    )
    found = load(path, target=("ring", "tags"), tasks={"ring": "regress", "tags": "multilabel"})
    assert [(one.task, one.labels) for one in found.outputs] == [("regress", ("ring",)), ("multilabel", ("x", "y"))]
    assert np.stack(list(found.splits["train"].labels())).shape[1] == 3
    plain = load(path, target=("ring", "tags"))
    assert [one.task for one in plain.outputs] == ["classify", "classify"]
    assert any("data.tasks.tags=multilabel reads 'a|b' as two labels" in note for note in plain.notes)
    one = load(path, target=("wing", "bill"), columns=("ring",), task="regress")
    assert (one.task, one.outputs, one.labels) == ("regress", (), ("wing", "bill"))
    made = recipe(path, **{"data.tasks.species": "classify"})
    assert made.data.tasks == {"species": "classify"}
    assert Recipe.from_json(made.to_json()) == made
    with pytest.raises(BadOption, match=r"data.tasks.species must be one of classify, regress, multilabel"):
        recipe(path, **{"data.tasks.species": "clasify"})
    with pytest.raises(BadOption, match=r"must name some of several data.target. Received: data.tasks.kind"):
        recipe(path, **{"data.tasks.kind": "classify"})
    with pytest.raises(DataError, match=r"data.task=multitask needs several targets. Received: data.target='ring'"):
        load(path, target="ring", task="multitask")
    with pytest.raises(
        DataError, match=r"one of the columns wing, bill, .* data.target='specie'. Did you mean 'species'"
    ):
        load(path, target=("specie", "ring"))


def test_columns_of_flags_are_labels(tmp_path):
    """Targets that are all 0 or 1 are several labels, as in a label file; data.task=multitask gives each an output."""
    rows = ["x,a,b", *(f"{i},{i % 2},{int(i % 3 == 0)}" for i in range(60))]
    (tmp_path / "flags.csv").write_text("\n".join(rows))
    dataset = load(tmp_path / "flags.csv", target=("a", "b"))
    assert (dataset.task, dataset.labels, dataset.outputs) == ("multilabel", ("a", "b"), ())
    several = load(tmp_path / "flags.csv", target=("a", "b"), task="multitask")
    assert [one.name for one in several.outputs] == ["a", "b"]


def test_names_of_outputs():
    """A name is an identifier in ASCII, different from the others and from those that models have anyway."""
    assert identifiers(["species", "Age"]) == ["species", "Age"]
    assert identifiers(["Body mass (g)", "größe", "日本", "2nd", "logits", "a b", "a.b"]) == [
        "Body_mass_g", "groe", "target_2", "target_2nd", "target_logits", "a_b", "a_b_2",
    ]  # fmt: skip
    assert all(name.isidentifier() for name in identifiers(["", "-", "a", "A"]))
