"""Checkpoints: every variable is restored to the bit; damaged and unsupported files are refused."""

from __future__ import annotations

import dataclasses
import json
import zlib

import numpy as np
import pytest

import zoo
from training.checkpoints.files import DamagedCheckpoint, Progress, load_checkpoint, load_weights, save_checkpoint
from training.fit.prepare import prepare
from training.recipe.recipe import recipes
from zoo.common.errors import RunError

SMALL = {"model.options": {"widths": [16], "dropout": 0.3}, "epochs": 2}
PROGRESS = Progress(epoch=3, step=7, best=0.1 + 0.2, best_epoch=2, seconds=12.625)


def fresh(**changed):
    """Return a compiled model and its pipeline, as training builds them."""
    _, pipeline, model, _ = prepare(recipes["digits_mlp"].override(**{**SMALL, **changed}))
    return model, pipeline


def groups(model):
    """Return the values of all variables of a compiled model by group."""
    found = {"model": model.variables, "optimizer": model.optimizer.variables, "metrics": model.metrics_variables}
    return {group: [v.numpy().copy() for v in variables] for group, variables in found.items()}


def differing(one, two):
    """Return the groups in which two states differ in any bit."""
    return {
        group
        for group in one
        if [v.dtype for v in one[group]] != [v.dtype for v in two[group]]
        or any(a.tobytes() != b.tobytes() for a, b in zip(one[group], two[group], strict=True))
    }


@pytest.fixture(scope="module")
def trained():
    """A model after three steps."""
    model, pipeline = fresh()
    model.fit(pipeline.train(0).take(3), shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    """The checkpoint of the trained model."""
    path = tmp_path_factory.mktemp("checkpoints") / "last.safetensors"
    save_checkpoint(path, trained, PROGRESS)
    return path


def test_every_variable_comes_back(trained, checkpoint):
    """Weights, dropout generators, moments, steps and running metrics are equal to the bit; so is the progress."""
    model, _ = fresh(seed=2)
    assert differing(groups(model), groups(trained)) == {"model", "optimizer", "metrics"}
    assert load_checkpoint(checkpoint, model) == PROGRESS
    assert differing(groups(model), groups(trained)) == set()
    assert any("seed" in v.path for v in model.variables)
    assert int(model.optimizer.iterations) == 3


def test_restored_model_takes_the_same_steps(trained, checkpoint):
    """Two models with the same state take the same next steps, including dropout."""
    results = []
    for _ in range(2):
        model, pipeline = fresh(seed=1)
        load_checkpoint(checkpoint, model)
        model.fit(pipeline.train(1).take(2), shuffle=False, verbose=0)
        results.append(groups(model))
    assert differing(*results) == set()
    assert differing(results[0], groups(trained)) == {"model", "optimizer", "metrics"}


def test_saving_again_gives_the_same_bytes(trained, checkpoint, tmp_path):
    """A checkpoint is a function of the state."""
    save_checkpoint(tmp_path / "again.safetensors", trained, PROGRESS)
    assert (tmp_path / "again.safetensors").read_bytes() == checkpoint.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.safetensors"]


@pytest.mark.parametrize(
    "progress", [Progress(), PROGRESS, Progress(seconds=1e-9, best=1.0), dataclasses.replace(PROGRESS, step=10**6)]
)
def test_progress_comes_back(trained, tmp_path, progress):
    """The position in the data and the best metrics are restored exactly."""
    save_checkpoint(tmp_path / "c.safetensors", trained, progress)
    assert load_checkpoint(tmp_path / "c.safetensors", trained) == progress


def test_weights_alone_go_into_a_model_without_optimizer(trained, checkpoint):
    """load_weights fills a model without an optimizer; its outputs equal those of the trained model."""
    bare = zoo.get("mlp", classes=10, input_shape=(8, 8, 1), **SMALL["model.options"])
    load_weights(checkpoint, bare)
    for one, two in zip(bare.weights, trained.weights, strict=True):
        assert one.numpy().tobytes() == two.numpy().tobytes()
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
    np.testing.assert_array_equal(bare(x), trained(x, training=False))


def damage(name, content):
    """Return the bytes of a checkpoint, damaged in one way."""
    header = int.from_bytes(content[:8], "little")
    flipped = bytearray(content)
    ways = {
        "brace": lambda: flipped.__setitem__(8, flipped[8] ^ 1),
        "length": lambda: flipped.__setitem__(2, flipped[2] ^ 0x40),
        "offsets": lambda: flipped.__setitem__(content.index(b"data_offsets") + 16, ord("9")),
        "dtype": lambda: flipped.__setitem__(content.index(b'"F32"') + 2, ord("9")),
        "progress": lambda: flipped.__setitem__(content.index(b"progress"), ord("q")),
        "digit": lambda: flipped.__setitem__(content.index(b'epoch\\": 3') + 9, ord("4")),
        "checksum": lambda: flipped.__setitem__(content.index(b"crc32") + 9, ord("x")),
        "first weight": lambda: flipped.__setitem__(8 + header, flipped[8 + header] ^ 1),
        "middle": lambda: flipped.__setitem__(8 + header + (len(content) - header) // 2, flipped[-9] ^ 0x80),
        "last byte": lambda: flipped.__setitem__(-1, flipped[-1] ^ 1),
        "cut by one byte": lambda: flipped.__delitem__(slice(-1, None)),
        "cut in half": lambda: flipped.__delitem__(slice(len(content) // 2, None)),
        "cut in the header": lambda: flipped.__delitem__(slice(header // 2, None)),
        "longer": lambda: flipped.extend(b"\0"),
        "empty": flipped.clear,
    }
    ways[name]()
    return bytes(flipped)


WAYS = (
    "brace",
    "length",
    "offsets",
    "dtype",
    "progress",
    "digit",
    "checksum",
    "first weight",
    "middle",
    "last byte",
    "cut by one byte",
    "cut in half",
    "cut in the header",
    "longer",
    "empty",
)


@pytest.mark.parametrize("way", WAYS)
def test_damaged_file_is_refused(trained, checkpoint, tmp_path, way):
    """A flipped byte in the header, a missing end or an empty file gives one line, and changes no variable."""
    path = tmp_path / "corrupted.safetensors"
    path.write_bytes(damage(way, checkpoint.read_bytes()))
    before = groups(trained)
    for load in (load_checkpoint, load_weights):
        with pytest.raises(RunError, match="checkpoint") as error:
            load(path, trained)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert differing(groups(trained), before) == set()


def test_checkpoint_without_a_checksum_is_damaged(checkpoint, tmp_path):
    """A header without a checksum, or with entries of other types, is refused as damage is."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(checkpoint, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        progress = file.metadata()["progress"]
    model, _ = fresh(seed=2)
    for metadata in ({"progress": progress}, {"crc32": "00000000", "progress": progress}, {"crc32": "00000000"}):
        save_file(arrays, tmp_path / "c.safetensors", metadata)
        with pytest.raises(DamagedCheckpoint, match=r"c\.safetensors"):
            load_checkpoint(tmp_path / "c.safetensors", model)


def resealed(path, target, edit):
    """Write a checkpoint with another progress and a checksum that fits."""
    content = path.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    values = json.loads(header["__metadata__"]["progress"])
    edit(values)
    header["__metadata__"] = {"crc32": "-" * 8, "progress": json.dumps(values)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    checksum = f"{zlib.crc32(content[size:], zlib.crc32(head)):08x}".encode()
    target.write_bytes(head.replace(b"-" * 8, checksum, 1) + content[size:])


def test_progress_of_other_types_is_damage(checkpoint, tmp_path):
    """The checksum is right: the types are not, or a number is negative. The same progress (the control) is loaded."""
    model, _ = fresh(seed=2)
    resealed(checkpoint, tmp_path / "c.safetensors", lambda _: None)
    assert load_checkpoint(tmp_path / "c.safetensors", model) == PROGRESS
    wrong = [("epoch", "1"), ("epoch", 1.5), ("step", None), ("step", -1), ("seconds", [1]), ("best", "x")]
    for change in (*wrong, ("best_epoch", True)):
        resealed(checkpoint, tmp_path / "c.safetensors", lambda values, new=change: values.update([new]))
        with pytest.raises(DamagedCheckpoint, match=r"c\.safetensors"):
            load_checkpoint(tmp_path / "c.safetensors", model)


def test_damaged_progress_is_refused(trained, tmp_path):
    """A header with missing or extra progress fields is refused."""
    from safetensors.numpy import save_file

    for text in ("{}x", '{"epochs": 3}', "[1]"):
        save_file({"a": np.zeros(1)}, tmp_path / "c.safetensors", {"progress": text})
        with pytest.raises(RunError, match=r"c\.safetensors"):
            load_checkpoint(tmp_path / "c.safetensors", trained)
    save_file({"a": np.zeros(1)}, tmp_path / "c.safetensors")
    with pytest.raises(RunError, match=r"c\.safetensors"):
        load_checkpoint(tmp_path / "c.safetensors", trained)


def test_missing_file_is_refused(trained, tmp_path):
    """A missing file, or a folder in its place, gives one line."""
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(RunError, match="readable checkpoint"):
            load_checkpoint(path, trained)


@pytest.mark.parametrize(
    "changed",
    [{"model.options.widths": [17]}, {"model.options.widths": [16, 16]}, {"optimizer.name": "sgd"}],
    ids=["other width", "another layer", "other optimizer"],
)
def test_checkpoint_of_another_model_is_refused(checkpoint, changed):
    """A checkpoint fits one model with one optimizer; any other model is refused and left unchanged."""
    model, _ = fresh(**changed)
    before = groups(model)
    with pytest.raises(RunError, match=r"Expected a checkpoint of the model 'mlp'.*of another model") as error:
        load_checkpoint(checkpoint, model)
    assert "\n" not in str(error.value)
    assert differing(groups(model), before) == set()


def test_weights_of_another_model_are_refused(checkpoint):
    """load_weights names the first weight that is missing or has another shape, and changes none."""
    bare = zoo.get("mlp", classes=9, input_shape=(8, 8, 1), **SMALL["model.options"])
    before = [v.numpy().copy() for v in bare.variables]
    with pytest.raises(RunError, match="lacks model/") as error:
        load_weights(checkpoint, bare)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(bare.variables, before, strict=True))
