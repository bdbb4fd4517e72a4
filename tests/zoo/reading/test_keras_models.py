"""Keras' files: damage of every kind is one line, and nothing outside of the file is read or run."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

import zoo
from zoo.common.errors import BadOption, RunError
from zoo.reading.keras_models import CONFIG, WEIGHTS, fill_weights, open_model


def model():
    """A small model."""
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(3, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(hidden))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The model in each kind of file, by suffix."""
    folder, made = tmp_path_factory.mktemp("keras"), model()
    made.save(folder / "model.keras")
    made.save(folder / "model.h5")
    made.save_weights(folder / "model.weights.h5")
    return {name: folder / f"model{name}" for name in (".keras", ".h5", ".weights.h5")}


def one_line(opened, path):
    """Whether a file is refused in one line with its name; False if it is read."""
    message = None
    try:
        opened(path)
    except (RunError, BadOption) as error:
        message = str(error)
    assert message is None or (str(path) in message and "\n" not in message and len(message) < 600)
    return message is not None


def readers(suffix):
    """What opens files of a kind."""
    if suffix == ".weights.h5":
        return [lambda path: fill_weights(model(), path)]
    return [open_model, zoo.load_model, lambda path: zoo.get("mlp_tiny", weights=path)]


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_damaged_files_are_one_line(files, tmp_path, suffix):
    """Flipped bits, cut files, other content and other kinds of files; the whole file (the control) is read."""
    whole, path = files[suffix].read_bytes(), tmp_path / f"model{suffix}"
    draw = np.random.default_rng(0)
    contents = [whole[: int(part * len(whole))] for part in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999)]
    contents += [b"text", b"\x00" * 1000, draw.bytes(len(whole)), whole[:64] + draw.bytes(2000)]
    for place in draw.integers(0, len(whole), 12):
        contents.append(whole[:place] + bytes([whole[place] ^ 1 << draw.integers(8)]) + whole[place + 1 :])
    refused = 0
    for content in contents:
        path.write_bytes(content)
        refused += one_line(readers(suffix)[0], path)
    assert refused >= 10
    for opened in readers(suffix):
        for content in contents[:8]:
            path.write_bytes(content)
            assert one_line(opened, path)
        path.unlink()
        assert one_line(opened, path)
        path.mkdir()
        assert one_line(opened, path)
        path.rmdir()
    path.write_bytes(whole)
    assert not one_line(readers(suffix)[0], path)


def rewritten(source, target, **members):
    """A copy of a `.keras` file with other members; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        contents = {name: old.read(name) for name in old.namelist()} | members
        for name, content in contents.items():
            if content is not None:
                new.writestr(name, content)
    return target


def test_every_flipped_bit_of_the_weights_is_found(files, tmp_path):
    """Keras alone falls back to reading them without their checksum."""
    whole = bytearray(files[".keras"].read_bytes())
    with zipfile.ZipFile(files[".keras"]) as archive:
        weights = archive.read(WEIGHTS)
    first = bytes(whole).index(weights)
    for place in np.random.default_rng(0).integers(first, first + len(weights), 30):
        whole[place] ^= 1
        (tmp_path / "model.keras").write_bytes(whole)
        with pytest.raises(RunError, match=f"checksum of {WEIGHTS} is wrong"):
            open_model(tmp_path / "model.keras")
        whole[place] ^= 1


def test_changed_members_are_one_line(files, tmp_path):
    """A missing member, another configuration, brackets and numbers without end, and sizes that are not the file's."""
    with zipfile.ZipFile(files[".keras"]) as archive:
        config = json.loads(archive.read(CONFIG))

    def units(count):
        changed = json.loads(json.dumps(config))
        changed["config"]["layers"][1]["config"]["units"] = count
        return json.dumps(changed)

    configs = [None, "", "[]", "{}", "3", "[" * 3000, '{"a":' * 3000, "1" * 5000, b"\xd8\x00"]
    configs += [units(5), units("many"), units(None), units([1]), units(-1), json.dumps({**config, "class_name": "X"})]
    configs += [json.dumps({**config, "config": None}), json.dumps({"class_name": "Dense", "config": {"units": 2}})]
    path = tmp_path / "model.keras"
    for content in configs:
        assert one_line(open_model, rewritten(files[".keras"], path, **{CONFIG: content}))
    for content in (None, b"", b"text"):
        assert one_line(open_model, rewritten(files[".keras"], path, **{WEIGHTS: content}))
    assert not one_line(open_model, rewritten(files[".keras"], path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CONFIG, json.dumps(config))
        archive.writestr(WEIGHTS, bytes(64 << 20))
    with pytest.raises(RunError, match="much more than"):
        open_model(path)


@pytest.mark.parametrize("kind", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
def test_layers_with_code_are_refused(files, tmp_path, kind):
    """Also inside other layers, where Keras has its own check or none."""
    with zipfile.ZipFile(files[".keras"]) as archive:
        config = json.loads(archive.read(CONFIG))
    layer = {"module": "keras.layers", "class_name": kind, "config": {}, "registered_name": None}
    config["config"]["layers"][1]["config"]["activation"] = {"class_name": "Any", "config": {"layer": [layer]}}
    with pytest.raises(RunError, match=f"has a {kind} layer, which holds code"):
        open_model(rewritten(files[".keras"], tmp_path / "model.keras", **{CONFIG: json.dumps(config)}))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("subprocess", "run"),
        ("evil", "Layer"),
        ("keras.utils", "get_file"),
        ("keras.datasets.mnist", "load_data"),
    ],
)
def test_no_module_is_imported_for_a_file(files, tmp_path, monkeypatch, module, name):
    """Classes and functions of modules that the file names: the module is not imported, and nothing is called."""
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with zipfile.ZipFile(files[".keras"]) as archive:
        config = json.loads(archive.read(CONFIG))
    for kind in (name, "function"):
        entry = {"module": module, "class_name": kind, "config": name, "registered_name": name}
        config["config"]["layers"][1]["config"]["activation"] = entry
        rewritten(files[".keras"], tmp_path / "model.keras", **{CONFIG: json.dumps(config)})
        assert one_line(open_model, tmp_path / "model.keras")
    assert not (tmp_path / "ran").exists()


def linked(kind):
    """Edits of an HDF5 file by which its values are in another file, or nowhere."""

    def edit(file, other):
        group = file.get("model_weights", file)
        if kind == "link":
            group["other"] = h5py.ExternalLink(str(other), "/")
        elif kind == "external":
            group.create_dataset("other", (4,), "float32", external=[(str(other), 0, 16)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4,), "float32")
            layout[:] = h5py.VirtualSource(str(other), "x", (4,))
            group.create_virtual_dataset("other", layout)
        else:
            group.create_dataset("other", (1 << 40,), "float32")

    return edit


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("kind", ["link", "external", "virtual", "absent"])
def test_values_outside_of_the_file_are_refused(files, tmp_path, suffix, kind):
    """Links to other files, external and virtual values, and values that the file does not have."""
    path = tmp_path / f"model{suffix}"
    path.write_bytes(files[suffix].read_bytes())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones(4, "float32")
    with h5py.File(path, "r+") as file:
        linked(kind)(file, tmp_path / "other.h5")
    for opened in readers(suffix):
        assert one_line(opened, path)


def test_weights_inside_a_keras_file_are_checked(files, tmp_path):
    """Values that the file does not have are not allocated, also if weights alone are read."""
    with zipfile.ZipFile(files[".keras"]) as archive:
        weights = io.BytesIO(archive.read(WEIGHTS))
    with h5py.File(weights, "r+") as file:
        linked("absent")(file, None)
    path = rewritten(files[".keras"], tmp_path / "model.keras", **{WEIGHTS: weights.getvalue()})
    for opened in (open_model, lambda path: fill_weights(model(), path)):
        assert one_line(opened, path)


def test_what_is_read_equals_what_was_saved(files):
    """The control: outputs of the opened model, and of one that was filled."""
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = keras.saving.load_model(files[".keras"])(x)
    filled = model()
    fill_weights(filled, files[".keras"])
    for found in (open_model(files[".keras"]), zoo.load_model(files[".h5"]), filled):
        assert np.array_equal(found(x), expected)
    assert io.BytesIO(files[".h5"].read_bytes()).read(4) == b"\x89HDF"


def larger(content, width):
    """The configuration of the model with a layer of another width."""
    return content.replace('"units": 3', f'"units": {width}')


@pytest.mark.parametrize("width", [300_000_000, 10**9, 10**12])
def test_weights_that_are_not_stored_are_not_made(files, tmp_path, width):
    """A configuration with a wider layer is refused before its weights take memory, in either kind of file."""
    with zipfile.ZipFile(files[".keras"]) as given, zipfile.ZipFile(tmp_path / "m.keras", "w") as made:
        for name in given.namelist():
            content = given.read(name)
            made.writestr(name, larger(content.decode(), width) if name == CONFIG else content)
    (tmp_path / "m.h5").write_bytes(files[".h5"].read_bytes())
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file.attrs["model_config"] = larger(file.attrs["model_config"], width)
    for path in (tmp_path / "m.keras", tmp_path / "m.h5"):
        with pytest.raises(RunError, match=f"hidden asks for a weight of 4 x {width} values, and 23 are stored"):
            open_model(path)
