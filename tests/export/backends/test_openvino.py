"""OpenVINO models: names, metadata and types in the file, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import export
from export.backends.openvino.runtime import PLAIN, OpenVinoOptions, OpenVinoRuntime, silent
from export.formats.openvino_int8 import Int8Options
from export.inspection.inspect import read_artifact
from export.inspection.stored_weights import stored_weights
from zoo.common.errors import BadOption, DataError, MissingDependency, RunError

NAMES = ("openvino", "openvino_int8")


def openvino_model(artifact):
    """The model as OpenVINO reads it."""
    import openvino

    return openvino.Core().read_model(artifact.path / "model.xml")


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_in_the_file(artifacts, name):
    """Names, layout, labels and preprocessing are in the file."""
    read, metadata = openvino_model(artifacts[name]), artifacts[name].manifest["metadata"]
    assert [port.any_name for port in (*read.inputs, *read.outputs)] == ["image", "logits"]
    assert str(read.inputs[0].get_node().get_layout()) == "[N,H,W,C]"
    assert read.inputs[0].partial_shape[0].is_dynamic
    assert json.loads(read.get_rt_info(["zoo"]).astype(str)) == metadata
    assert json.loads(read.get_rt_info(["labels"]).astype(str)) == metadata["labels"]
    assert json.loads(read.get_rt_info(["preprocessing"]).astype(str)) == metadata["preprocessing"]
    assert read.get_rt_info(["model"]).astype(str) == "resnet_tiny"


def test_int8_weights_are_int8(artifacts):
    """Every convolution and the last product have int8 weights; the float file has none."""

    def stored(name):
        weighted = ("Convolution", "GroupConvolution", "MatMul")
        return [
            constant_before(node.input_value(1).get_node()).get_output_element_type(0).get_type_name()
            for node in openvino_model(artifacts[name]).get_ops()
            if node.get_type_name() in weighted
        ]

    def constant_before(node):
        return node if node.get_type_name() == "Constant" else constant_before(node.input_value(0).get_node())

    assert set(stored("openvino_int8")) == {"i8"}
    assert set(stored("openvino")) == {"f32"}
    assert artifacts["openvino_int8"].parity["accuracy"] >= artifacts["openvino_int8"].parity["source_accuracy"] - 0.006


def test_float32_is_computed_in_float32(artifacts):
    """By default OpenVINO uses bfloat16 if the processor supports it, with errors of about a thousandth."""
    assert artifacts["openvino"].parity["relative"] <= 1e-5


def test_batch_is_the_one_asked_for(variants, artifacts):
    """The batch size is static, and the runtime takes any number of images."""
    runtime = export.load(variants["openvino:batch=4"].path)
    assert runtime.batch == 4
    images = np.random.default_rng(0).integers(0, 256, (6, *runtime.inputs[0].shape[1:])).astype("float32")
    wanted = export.load(artifacts["openvino"].path)(images)
    np.testing.assert_allclose(runtime(images), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(BadOption, match="batch"):
        OpenVinoOptions(batch=-2)


def test_edges_may_be_in_any_order(artifacts, tmp_path):
    """The port of an edge names the input; the order of edges in the file does not matter."""
    shutil.copytree(artifacts["openvino_int8"].folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.xml"
    tree = ElementTree.parse(file)
    edges = tree.getroot().find("edges")
    edges[:] = list(edges)[::-1]
    before = read_artifact(file).graph
    tree.write(file)
    after = read_artifact(file).graph
    assert [operator.integer for operator in after.operators] == [operator.integer for operator in before.operators]
    assert after.float_fallback() == before.float_fallback() == []


def test_groups_of_a_convolution_are_brought_together(tmp_path):
    """OpenVINO stores groups on an axis of their own; guarantees about kernels refer to Keras' layout."""
    import openvino
    from openvino import opset13

    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype("float32")
    image, apart = opset13.parameter([1, 8, 6, 6], np.float32), kernel.transpose(3, 2, 0, 1).reshape(2, 3, 4, 3, 3)
    sizes = [1, 1], [1, 1], [1, 1], [1, 1]
    maps = opset13.group_convolution(image, opset13.constant(apart), *sizes)
    openvino.save_model(openvino.Model([maps], [image]), tmp_path / "model.xml", compress_to_fp16=False)
    (found,) = stored_weights(tmp_path / "model.xml")
    np.testing.assert_array_equal(found, kernel)


@pytest.mark.parametrize(("package", "options"), [("openvino", PLAIN), ("nncf", Int8Options())])
def test_a_missing_package_is_named(monkeypatch, package, options):
    """The error comes before conversion, with the command that installs the package."""
    options.check({})
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r'pip install "keras-zoo\[openvino\]"'):
        options.check({})


@pytest.mark.parametrize("content", [None, b"<net/>", b""])
def test_damaged_models_are_one_line(artifacts, tmp_path, content):
    """A truncated file, a file of another kind, and an empty file are refused."""
    shutil.copytree(artifacts["openvino"].path, tmp_path / "copy")
    file = tmp_path / "copy" / "model.xml"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(RunError, match="OpenVINO") as refused:
        OpenVinoRuntime(tmp_path / "copy")
    assert "\n" not in str(refused.value)


def test_layers_without_a_type_are_one_line(artifacts, tmp_path):
    """Of any kind: the file is refused by the name of the layer."""
    shutil.copytree(artifacts["openvino"].path, tmp_path / "copy")
    file = tmp_path / "copy" / "model.xml"
    whole = file.read_text(encoding="utf-8")
    for kind in ("Parameter", "Convolution", "Const", "Result"):
        file.write_text(whole.replace(f' type="{kind}"', f' tyqe="{kind}"', 1), encoding="utf-8")
        with pytest.raises(DataError, match=r"the layer .* has no type") as refused:
            export.inspect(tmp_path / "copy")
        assert "\n" not in str(refused.value)


def test_nothing_is_reported_to_the_makers():
    """OpenVINO's telemetry is off while its tools run; the environment is restored afterwards."""
    before = dict(os.environ)
    with silent():
        assert (os.environ["CI"], os.environ["NNCF_CI"]) == ("true", "1")
    assert dict(os.environ) == before
