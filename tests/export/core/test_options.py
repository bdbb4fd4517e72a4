"""Options of formats: read, refused in one line, passed to the artifact, its folder and its manifest."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from typing import Literal

import numpy as np
import pytest

import export
import zoo
from export.core import options as options_module
from export.core.format import formats, parse_format
from export.core.manifest import SAMPLES
from export.core.samples import in_batches, read_samples
from export.core.tolerance import Tolerance
from export.targets import TARGETS, every_format, formats_for
from zoo.common.errors import BadOption, ParityError, UnknownName


@dataclasses.dataclass(frozen=True)
class Some(options_module.Options):
    """Options of every kind."""

    batch: int = 1
    kind: Literal["plain", "16x8"] = "plain"
    opset: Literal[17, 18] = 17
    fraction: float = 0.5
    free: bool = False
    name: str = "batch"
    names: tuple[str, ...] = ()


def test_options_are_read():
    """Options of every type are read in any order, with or without white space."""
    text = "free=true,batch=4,kind=16x8,opset=18,fraction=1,name=12,names=a+b"
    assert options_module.parse_options("some", text, Some) == Some(4, "16x8", 18, 1.0, True, "12", ("a", "b"))
    assert options_module.parse_options("some", "", Some) == Some()
    assert options_module.split_name(" tflite : batch = 4 ") == ("tflite", "batch=4")
    assert options_module.parse_options("some", "4,true", Some, ("batch", "free")) == Some(batch=4, free=True)


@pytest.mark.parametrize(("text", "message"), [
    ("bach=4", "Did you mean 'batch'"),
    ("batch=x", "some:batch must be a whole number"),
    ("batch=1.5", "some:batch must be a whole number"),
    ("batch=true", "some:batch must be a whole number"),
    ("kind=half", "some:kind must be one of plain, 16x8"),
    ("opset=16", "some:opset must be one of 17, 18"),
    ("free=yes", "some:free must be a true or false"),
    ("batch=4,batch=4", "given once"),
    ("4", "does not take this value"),
])  # fmt: skip
def test_wrong_options_are_refused(text, message):
    """The error is one line with the received value."""
    with pytest.raises(BadOption, match=message) as caught:
        options_module.parse_options("some", text, Some)
    assert "Received" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_folders():
    """Defaults are left out; characters that a file system may refuse are replaced, and names stay distinct."""
    assert options_module.options_slug(Some()) == options_module.options_slug(Some(batch=1)) == ""
    assert options_module.options_slug(Some(batch=4, free=True)) == "+batch=4+free=true"
    slugs = {options_module.options_slug(Some(name=name)) for name in ("a/b", "a b", "a-b", "../a")}
    assert len(slugs) == 4
    assert all(not set(slug) & set('/\\:*?"<>| ') for slug in slugs)


def test_metadata_names_what_was_asked_for():
    """Changed options are stored as JSON; defaults are left out."""
    assert options_module.with_options({"model": "net"}, Some()) == {"model": "net"}
    found = options_module.with_options({"model": "net"}, Some(names=("a", "b")))
    assert json.loads(json.dumps(found)) == found == {"model": "net", "options": {"names": ["a", "b"]}}


@pytest.mark.parametrize(("options", "message"), [
    (dataclasses.make_dataclass("Wild", [("batch", int, 1)], frozen=True), "derives from export.Options"),
    (dataclasses.make_dataclass("Bare", [("batch", int)], bases=(options_module.Options,), frozen=True), "has defaults"),  # noqa: E501
])  # fmt: skip
def test_options_that_cannot_be_are_not_registered(options, message):
    """The plug-in gets the error when it registers."""
    with pytest.raises(BadOption, match=message):
        export.register_format(
            "their_wild",
            file="x",
            write=print,
            load=print,
            tolerance=Tolerance(1.0, 0.0, 1.0),
            summary="",
            options=options,
        )
    assert "their_wild" not in formats


def test_in_batches():
    """The function gets whole batches only; the padding of the last one is removed from the output."""
    sizes = []

    def double(values):
        sizes.append(len(values))
        return 2 * values

    np.testing.assert_array_equal(in_batches(double, np.arange(7), 3), 2 * np.arange(7))
    assert sizes == [3, 3, 3]
    both = in_batches(lambda given: given["a"] + given["b"], {"a": np.arange(4), "b": np.arange(4)}, 3)
    np.testing.assert_array_equal(both, 2 * np.arange(4))


@pytest.mark.parametrize("text", ["tflite_int88:batch=4", "tflite_int88"])
def test_unknown_format_names_the_nearest(text):
    """The error suggests the nearest name, with and without options."""
    with pytest.raises(UnknownName, match="tflite_int8"):
        parse_format(text)


@pytest.mark.parametrize("text", [
    "tflite:bach=4", "tflite:batch=0", "tflite:batch=four", "tflite:input=int8", "tflite_int8:flex=true",
    "saved_model:batch=4",
])  # fmt: skip
def test_command_refuses_before_anything_runs(zoo_command, digits_run, text):
    """Exit code 2, one line, and no file is written."""
    before = sorted(digits_run.exports.glob("*")) if digits_run.exports.exists() else []
    code, out, err = zoo_command("export", digits_run.path, "--format", text)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "Received" in err
    assert (sorted(digits_run.exports.glob("*")) if digits_run.exports.exists() else []) == before


def test_formats_list_their_options(zoo_command):
    """The table lists the values, the default first; --json has the same."""
    code, out, err = zoo_command("formats")
    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if line.startswith("tflite_int8 "))
    assert " batch=1, rounding=nearest|learned, equalize=false|true, " in line
    assert line.rstrip().endswith("exclude=0, input=int8|uint8|float32, output=int8|uint8|float32")
    found = {entry["name"]: entry for entry in json.loads(zoo_command("formats", "--json")[1])}
    assert found["tflite"]["options"] == [
        {"name": "batch", "default": 1, "values": []},
        {"name": "input", "default": "float32", "values": ["float32", "uint8"]},
        {"name": "flex", "default": False, "values": [False, True]},
    ]


def test_targets_are_listed(zoo_command):
    """The targets are listed as a table and as JSON."""
    code, out, err = zoo_command("targets")
    assert (code, err) == (0, "")
    assert all(entry.why in out for entry in TARGETS.values())
    found = {entry["name"]: entry for entry in json.loads(zoo_command("targets", "--json")[1])}
    assert found["android"]["formats"] == ["tflite", "tflite_fp16", "tflite_dynamic", "tflite_int8"]


def test_targets_name_formats_that_exist(digits_run):
    """Each target has a sentence; a format that is not available is left out by name."""
    for target, entry in TARGETS.items():
        chosen, left = formats_for(digits_run, target)
        assert entry.why.endswith(".")
        assert {*chosen, *left} == set(entry.formats)
        assert chosen, target
        assert all(parse_format(text).text == text for text in chosen)


def test_target_leaves_out_what_the_spec_rules_out(digits_run, monkeypatch):
    """The format is left out with the reason of the spec."""
    from zoo.specs.registry import models

    model = models["resnet_tiny"]
    spec = dataclasses.replace(model.spec, unsupported=(("tflite_int8", "it has a layer that phones lack"),))
    monkeypatch.setitem(models._entries, "resnet_tiny", dataclasses.replace(model, spec=spec))
    chosen, left = formats_for(digits_run, "android")
    assert "tflite_int8" not in chosen
    assert left == {"tflite_int8": "resnet_tiny does not export to tflite_int8: it has a layer that phones lack"}


# Float within 1e-4, int8 within 0.3 points, on all 360 test images: seven do not divide them.
ASKED = {
    "tflite:batch=7,input=uint8": (1e-4, 0.0),
    "tflite_int8:batch=7,input=uint8,output=uint8": (0.5, 0.003),
    "tflite_int8:input=float32,output=float32": (0.5, 0.003),
    "tflite_int16x8:input=int16,output=int16": (0.1, 0.003),
}


@pytest.mark.parametrize("text", list(ASKED))
def test_artifact_is_what_was_asked_for(variants, text):
    """Folder, manifest, metadata, batch and dtypes; within tolerance of the source on every test image."""
    artifact, wanted = variants[text], parse_format(text)
    options = dataclasses.asdict(wanted.options)
    assert artifact.name == wanted.slug
    assert artifact.manifest["options"] == options
    assert artifact.manifest["metadata"]["options"] == options_module.changed_options(wanted.options)
    runtime = export.load(artifact.path)
    assert runtime.batch == options["batch"]
    assert [t.dtype for t in (*runtime.inputs, *runtime.outputs)] == [
        options["input"],
        options.get("output", "float32"),
    ]
    samples = read_samples(artifact.folder / SAMPLES)
    logits, (relative, drop) = runtime(samples["inputs"]), ASKED[text]
    assert logits.shape == (360, 10)
    assert np.abs(logits - samples["logits"]).max() <= relative * np.abs(samples["logits"]).max()
    right, was = ((x.argmax(1) == samples["labels"]).mean() for x in (logits, samples["logits"]))
    assert right >= was - drop - 1e-9
    # A single example in a padded batch has the same logits as among others.
    np.testing.assert_array_equal(runtime(samples["inputs"][3:4]), logits[3:4])
    assert export.verify(artifact.path).parity["passed"]


def test_pixels_as_bytes_are_not_converted(variants):
    """uint8 inputs have scale 1 and zero point 0."""
    for text in list(ASKED)[:2]:
        (given,) = export.load(variants[text].path).inputs
        assert (given.scale or 1.0, given.zero_point or 0) == (1.0, 0)


def test_other_ends_are_the_same_function(variants):
    """int8 with uint8 and with float32 inputs and outputs gives the same logits."""
    first, second = (export.load(variants[text].path) for text in list(ASKED)[1:3])
    inputs = read_samples(variants[list(ASKED)[1]].folder / SAMPLES)["inputs"][:50]
    np.testing.assert_allclose(first(inputs), second(inputs), rtol=1e-6)


@pytest.mark.parametrize(("facts", "text"), [
    ({"task": "classify", "dtype": "int32", "input": "ids"}, "tflite_int8:input=float32"),
    ({"task": "classify", "dtype": "int32", "input": "ids"}, "tflite:input=uint8"),
    ({"task": "classify", "dtype": "float32", "input": "features"}, "tflite:input=uint8"),
    ({"task": "regress", "dtype": "float32", "input": "features", "tabular": {}}, "tflite_int8:input=uint8"),
    ({"task": "generate", "dtype": "int32", "input": "source"}, "tflite_int8:output=float32"),
])  # fmt: skip
def test_options_that_a_model_cannot_have(facts, text):
    """Such options are refused by the metadata; the control: the same format without them is accepted."""
    wanted = parse_format(text)
    with pytest.raises(BadOption, match="Received"):
        wanted.options.check(facts)
    wanted.format.options().check(facts)


def test_max_drop_applies_to_lossy_formats():
    """A float format stays exact; another may lose `max_drop`, and as many more predictions may differ."""
    exact, lossy = formats["tflite"].tolerance, formats["tflite_int8"].tolerance
    assert exact.with_max_drop(5.0) == exact
    assert lossy.with_max_drop(None) == lossy
    assert lossy.with_max_drop(0.1) == dataclasses.replace(lossy, drop=0.001, measured=True)
    wide = lossy.with_max_drop(2.6)
    assert (wide.drop, wide.agreement) == pytest.approx((0.026, lossy.agreement - 0.02))
    with pytest.raises(BadOption, match="max_drop must be from 0 to 100 points"):
        parse_format("tflite_int8", -1)


@pytest.mark.slow
def test_max_drop_below_the_loss_is_refused(copied, artifacts, tmp_path):
    """Verification applies the user's `max_drop` and leaves nothing if it fails; `verify` applies it again."""
    losses = {n: a.parity["source_accuracy"] - a.parity["accuracy"] for n, a in artifacts.items()}
    name, lost = max(losses.items(), key=lambda pair: pair[1])
    assert lost > 0
    run, wanted = copied(tmp_path / "run"), f"{name}:batch=2"
    with pytest.raises(ParityError, match="largest drop 0 points"):
        export.convert(run, wanted, max_drop=0.0)
    assert not (run.exports / f"{name}+batch=2").exists()
    (made,) = export.convert(run, wanted, max_drop=5.0)
    assert made.manifest["max_drop"] == 5.0
    assert export.verify(made.path).parity["tolerance"]["drop"] == 0.05


def test_what_is_not_installed_is_left_out_by_name(monkeypatch):
    """`--all` and `--for` export what is possible here, and report what the other formats lack."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "nncf" else find(name, *more))
    found, left = every_format(zoo.spec("resnet_tiny"))
    assert left == {"openvino_int8": "it needs the package 'nncf', which is not installed"}
    assert {*found, *left} == set(formats.names())
