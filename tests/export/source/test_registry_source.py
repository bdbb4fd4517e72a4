"""A model of the registry exports without a run: compared on a user's images, on rows, or on seeded noise."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import export
import zoo
from export.core.format import parse_format
from export.core.manifest import NAME
from export.core.samples import read_samples
from export.source.job import RegistryJob
from export.source.request import RegistryRequest
from zoo.common.errors import BadOption, DataError, ParityError

NAME_OF = "resnet_tiny"
ENCODER = next(
    name for name in zoo.list_models("*tiny") if zoo.spec(name).vocabulary and zoo.spec(name).task == "classify"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty images of digits, of other sizes than the model's, half of them in a sub-folder."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for i, pixels in enumerate(load_digits().images[:40]):
        image = Image.fromarray((pixels * 15.9).astype("uint8")).resize((40, 48))
        image.save(folder / ("more" if i % 2 else ".") / f"{i}.{'png' if i % 3 else 'jpg'}")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights."""
    from zoo.common.lazy import keras

    keras.utils.set_random_seed(7)
    model = zoo.get(NAME_OF, classes=5)
    for variable in model.weights:
        if variable.name in ("moving_mean", "beta", "bias"):
            variable.assign(np.random.default_rng(0).uniform(-0.2, 0.2, variable.shape))
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    zoo.save_weights(model, path)
    return path, model


@pytest.fixture(scope="module")
def exported(pictures, weights, tmp_path_factory):
    """The weights exported to a float and an int8 format, by name."""
    out = tmp_path_factory.mktemp("out") / "exports"
    wanted = ["onnx", "tflite_int8"]
    made = export.convert(NAME_OF, wanted, weights=weights[0], calibration=pictures, out=out, options={"classes": 5})
    return {artifact.format: artifact for artifact in made}


def test_artifacts_have_the_logits_of_the_weights(exported, weights):
    """Logits of raw pixels equal those of Keras after the spec's preprocessing; there are no labels."""
    scale, offset = zoo.spec(NAME_OF).preprocessing.affine()
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    expected = weights[1].predict(images * np.float32(scale) + np.float32(offset), verbose=0)
    found = export.load(exported["onnx"].path)(images)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    for artifact in exported.values():
        assert artifact.parity["passed"]
        assert artifact.parity["accuracy"] is None
        assert artifact.parity["n"] == 20
        assert artifact.parity["agreement"] >= 0.95


def test_manifest_describes_the_source(exported, weights):
    """The manifest has the model, the digest of its weights, and the kind of samples."""
    from export.core.manifest import digest_file

    manifest = exported["tflite_int8"].manifest
    assert manifest["samples"] == "folder"
    assert manifest["source"]["model"] == NAME_OF
    assert manifest["source"]["weights_sha256"] == digest_file(weights[0])
    assert manifest["source"]["options"] == {"classes": 5}
    assert manifest["metadata"]["labels"] == list("01234")
    assert manifest["inspection"]["int8_operators"] == 1.0


def test_verify_and_inspect_need_no_more(exported, tmp_path):
    """An artifact's folder is enough to verify it; a changed byte is found."""
    folder = tmp_path / "copy"
    shutil.copytree(exported["onnx"].folder, folder)
    assert export.verify(folder).parity["passed"]
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-40] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ParityError, match="was changed"):
        export.verify(folder)


def test_samples_are_images_of_the_folder(exported):
    """Samples are pixels in the model's shape, preprocessed as in the spec; calibration does not use them."""
    inputs = read_samples(exported["onnx"].folder / "samples.npz")["inputs"]
    assert inputs.shape == (20, 32, 32, 3)
    assert inputs.min() >= 0
    assert inputs.max() > 200


@pytest.mark.parametrize(("arguments", "message"), [
    (("--format", "onnx"), "--weights"),
    (("--format", "tflite_int8", "--weights", "random"), "--calibration"),
    (("--format", "onnx", "--weights", "{tmp}/none.safetensors"), "weights must be"),
    (("--format", "onnx", "--weights", "imagenet"), "has no such weights"),
    (("--format", "onnx", "--weights", "random", "--calibration", "{tmp}/nowhere"), "does not exist"),
    (("--format", "onnx", "--weights", "random", "--calibration", "{tmp}"), "must hold images"),
    (("--format", "onnx", "--weights", "random", "--set", "depht=3"), "no such option"),
    (("--format", "onnx", "--weights", "random", "--compress", "fold"), "compress applies"),
    (("--format", "onyx", "--weights", "random"), "onnx"),
])  # fmt: skip
def test_bad_input_is_one_line(arguments, message, tmp_path, zoo_command):
    """Exit code 2, one line, and no file is left."""
    given = [a.format(tmp=tmp_path) for a in arguments]
    code, out, err = zoo_command("export", NAME_OF, *given, "--out", tmp_path / "exports")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "exports").exists()


def test_options_of_models_mean_nothing_for_runs(zoo_command, digits_run):
    """The error names the option."""
    code, _, err = zoo_command("export", digits_run.path, "--format", "onnx", "--weights", "imagenet")
    assert code == 2
    assert "weights='imagenet'" in err


def test_bad_examples_are_one_line(tmp_path):
    """An image that is none, and arrays of another shape, of ids outside the vocabulary, or of no ids."""
    from export.source.registry_source import open_registry_source

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(b"no image")
    np.save(tmp_path / "shape.npy", np.zeros((4, 9, 9, 3)))
    np.save(tmp_path / "ids.npy", np.full((4, 64), 5_000))
    np.save(tmp_path / "whole.npy", np.array([{}], object), allow_pickle=True)
    bad = [
        (NAME_OF, "folder", "can be decoded"),
        (NAME_OF, "shape.npy", r"\(n, 32, 32, 3\)"),
        ("tagger_tiny", "ids.npy", "from 0 to 999"),
        (NAME_OF, "whole.npy", "Expected examples"),
        ("tagger_tiny", "folder", "takes ids, no images"),
    ]
    for name, file, message in bad:
        with pytest.raises(DataError, match=message):
            open_registry_source(RegistryRequest(name, "random", str(tmp_path / file)), tmp_path / "scratch")


def test_rows_of_a_file_are_read(tmp_path):
    """A .csv with a header and a .npy are read; half of the rows calibrate, the other half are compared."""
    from export.source.registry_source import open_registry_source

    rows = np.random.default_rng(0).normal(size=(40, 6)).round(3)
    lines = ["a,b,c,d,e,f", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    np.save(tmp_path / "rows.npy", rows)
    for file in ("rows.csv", "rows.npy"):
        request = RegistryRequest("mlp_tiny", "random", str(tmp_path / file), {"input_shape": [6]})
        source, samples = open_registry_source(request, tmp_path)
        assert samples["inputs"].shape == (20, 6)
        together = np.concatenate([samples["inputs"], source.calibration])
        np.testing.assert_allclose(np.sort(together, axis=0), np.sort(rows, axis=0), rtol=1e-6)
        assert "labels" not in samples


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_tiny", "tagger_tiny", "transformer_tiny", ENCODER])
def test_texts_and_tables_are_compared_on_noise(name, tmp_path):
    """The noise is seeded, and the manifest reports it. Calibrated formats need examples, except for ids."""
    origin, wanted = RegistryJob(RegistryRequest(name, "random"), tmp_path), ["onnx", "tflite", "saved_model"]
    with contextlib.nullcontext() if zoo.spec(name).vocabulary else pytest.raises(BadOption, match="--calibration"):
        origin.check(parse_format("tflite_int8"))
    made = export.convert(name, wanted, weights="random", out=tmp_path / "out")
    for artifact in made:
        assert artifact.manifest["samples"] == "noise"
        assert artifact.parity["passed"]
        export.verify(artifact.path)
    again = export.convert(name, "onnx", weights="random", out=tmp_path / "again")[0]
    inputs = [read_samples(a.folder / "samples.npz")["logits"] for a in (made[0], again)]
    np.testing.assert_array_equal(*inputs)


def killed_exports(python, pictures, out, times):
    """Kill exports after random times; returns what is left that is visible."""
    draw = random.Random(0)
    for _ in range(times):
        process = python(
            "-m", "zoo", "export", NAME_OF, "--weights", "random", "--calibration", pictures, "--out", out,
            "--format", "onnx", "tflite", "tflite_int8",
        )  # fmt: skip
        time.sleep(draw.uniform(5, 20))
        process.send_signal(signal.SIGKILL)
        process.wait()
        yield [path for path in out.glob("*") if not path.name.startswith(".")] if out.exists() else []


@pytest.mark.slow
def test_killed_exports_leave_whole_artifacts_or_none(python, pictures, tmp_path):
    """At six random moments visible artifacts verify, and the next export removes the rest."""
    out = tmp_path / "out"
    for visible in killed_exports(python, pictures, out, 6):
        for folder in visible:
            assert (folder / NAME).is_file()
            export.verify(folder)
    export.convert(NAME_OF, "onnx", weights="random", out=out)
    assert [path.name for path in out.glob(".*") if path.name != ".lock"] == []


@pytest.mark.slow
def test_exports_in_a_row_leave_the_memory_where_it_was(tmp_path):
    """Leaks of converters end with their process: the parent does not grow from the tenth export to the last."""
    sizes = []
    for _ in range(15):
        export.convert("mlp_tiny", "tflite", weights="random", out=tmp_path / "out")
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6)
    assert sizes[-1] - sizes[9] < 20, sizes


@pytest.mark.slow
def test_command_exports_a_model(zoo_command, tmp_path):
    """One format, its manifest as JSON."""
    code, out, err = zoo_command(
        "export", "mlp_tiny", "--weights", "random", "--format", "onnx", "--out", tmp_path / "o", "--json"
    )
    assert code == 0, err
    (manifest,) = json.loads(out)
    assert manifest["path"] == str(tmp_path / "o" / "onnx" / "model.onnx")
    assert manifest["samples"] == "noise"


def test_weights_are_asked_for():
    """Random weights must be requested."""
    with pytest.raises(BadOption, match="Give --weights"):
        export.convert(NAME_OF, "onnx", weights="")


def test_other_sources_are_one_line():
    """Another object, and arguments that do not apply to the source, are refused by name."""
    with pytest.raises(BadOption, match=r"^source must be a trained run, [^\n]*Received: source=int\.$"):
        export.convert(42, "onnx")
    with pytest.raises(BadOption, match=r"labels does not apply to runs and registry models"):
        export.convert(NAME_OF, "onnx", weights="random", labels=["a"])
    with pytest.raises(BadOption, match="compress applies to trained runs"):
        export.convert(NAME_OF, "onnx", weights="random", compress="fold")
    with pytest.raises(BadOption, match=r"formats must name one or more of .*Received: formats=\[\]"):
        export.convert(NAME_OF, [], weights="random")
