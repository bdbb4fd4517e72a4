"""What is asked of ONNX files: operator sets, batches, float16, weights in a file of their own, and what is in them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import export
import zoo
from export.backends.onnx.external import SUFFIX, read
from export.backends.onnx.float16 import halve, too_large
from export.backends.onnx.fuse import scale_channels_first
from export.backends.onnx.options import OnnxOptions
from export.backends.onnx.runtime import OnnxRuntime
from export.core.options import parse_options
from zoo.common.errors import BadOption, RunError

NAMED, EXTERNAL = "onnx:axis=images,opset=18", "onnx:external=true,opset=21"
OPSETS = (NAMED, EXTERNAL, "onnx_int8:opset=21")
OTHERS = ("onnx:opset=19", "onnx:opset=20", "onnx_fp16:opset=20", "onnx_dynamic:opset=19")
PLAIN = ("onnx", "onnx_dynamic", "onnx_fp16", "onnx_int8")
CONVOLUTIONAL = (
    "alexnet_tiny", "cnn_tiny", "convnext_micro_tiny", "densenet_tiny", "efficientnet_tiny", "googlenet_tiny",
    "inception_tiny", "mobilenet_tiny", "resnet_tiny", "resnetv2_tiny", "vgg_bn_tiny", "vgg_tiny",
)  # fmt: skip


@pytest.fixture(scope="module")
def others(copied, tmp_path_factory):
    """The digits' run with the other operator sets."""
    run = copied(tmp_path_factory.mktemp("others") / "run")
    return dict(zip(OTHERS, export.convert(run, OTHERS), strict=True))


def loaded(artifact):
    """The file as onnx reads it."""
    import onnx

    return onnx.load(artifact.path)


@pytest.mark.parametrize(("made", "asked"), [
    *(("variants", text) for text in OPSETS),
    *(pytest.param("others", text, marks=pytest.mark.slow) for text in OTHERS),
])  # fmt: skip
def test_operator_sets_are_those_asked_for(made, asked, request):
    """The checker and strict shape inference pass; verification has run the file in ONNX Runtime."""
    import onnx

    artifact = request.getfixturevalue(made)[asked]
    model = loaded(artifact)
    assert [entry.version for entry in model.opset_import] == [artifact.manifest["options"]["opset"]]
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert artifact.parity["passed"]
    assert artifact.parity["n"] == 360


def test_batches_and_axes_are_those_asked_for(artifacts, variants):
    """A fixed size, or a name for the free one, at both ends."""

    def first(artifact):
        graph = loaded(artifact).graph
        return [value.type.tensor_type.shape.dim[0] for value in (*graph.input, *graph.output)]

    assert [size.dim_param for size in first(artifacts["onnx"])] == ["batch", "batch"]
    assert [size.dim_param for size in first(variants[NAMED])] == ["images", "images"]
    assert [size.dim_value for size in first(variants["onnx:batch=4"])] == [4, 4]
    runtime = export.load(variants["onnx:batch=4"].path)
    images = np.random.default_rng(0).integers(0, 256, (6, *runtime.inputs[0].shape[1:])).astype("float32")
    found, wanted = runtime(images), export.load(artifacts["onnx"].path)(images)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "complaint"), [("opset=16", "17"), ("opset=22", "21"), ("batch=-1", "at least 1"), ("axis=1-x", "axis")]
)
def test_options_that_cannot_be_are_refused(text, complaint):
    """The error lists the valid values."""
    with pytest.raises(BadOption, match=complaint):
        parse_options("onnx", text, OnnxOptions)


@pytest.mark.parametrize("name", PLAIN)
def test_facts_can_be_read_one_by_one(artifacts, name):
    """Labels and preprocessing for readers who do not know the zoo; nobody is named."""
    props = {entry.key: entry.value for entry in loaded(artifacts[name]).metadata_props}
    assert json.loads(props["labels"]) == [str(digit) for digit in range(10)]
    assert json.loads(props["preprocessing"])["inside"] is True
    assert (props["model"], props["task"], props["input"], props["output"]) == (
        "resnet_tiny", "classify", "image", "logits",
    )  # fmt: skip
    assert json.loads(props["zoo"]) == artifacts[name].manifest["metadata"]
    assert not any("author" in key for key in props)


def scaled_graph(read_twice):
    """Images, channels last, less a mean and times a scale by channel, transposed and convolved."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    arrays = {"mean": draw.normal(size=3), "scale": draw.normal(size=(1, 1, 1, 3)), "half": np.array(0.5)}
    arrays["kernel"] = draw.normal(size=(4, 3, 3, 3))
    nodes = [
        helper.make_node("Sub", ["mean", "image"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Div", ["scaled", "half"], ["doubled"]),
        helper.make_node("Transpose", ["doubled"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["maps"]),
        *([helper.make_node("Neg", ["scaled"], ["other"])] if read_twice else []),
    ]
    names = {"maps": ["n", 4, 6, 6], **({"other": ["n", 8, 8, 3]} if read_twice else {})}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in names.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 8, 8, 3])
    weights = [numpy_helper.from_array(array.astype("float32"), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "scaled", [image], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("read_twice", "kinds"), [
    (False, ["Transpose", "Sub", "Mul", "Div", "Conv"]),
    (True, ["Sub", "Mul", "Transpose", "Div", "Conv", "Neg"]),
])  # fmt: skip
def test_channels_are_scaled_where_they_come_first(read_twice, kinds):
    """Three values at a time are slow; what others read too stays where it is, and all outputs stay the same."""
    import onnx
    import onnxruntime

    def outputs(model):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"image": np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")})

    model = scaled_graph(read_twice)
    before = outputs(model)
    scale_channels_first(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == kinds
    for found, expected in zip(outputs(model), before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def transposes(graph):
    """The transpositions of a graph, without the one from the raw image and those before it is flattened."""
    constants = {tensor.name for tensor in graph.initializer}
    raw, flattened, found = {value.name for value in graph.input}, set(), []
    for node in graph.node:
        flattened.update(node.input if node.op_type == "Flatten" else ())
    for node in graph.node:
        from_raw = raw.issuperset(set(node.input) - constants)
        if node.op_type == "Transpose" and not from_raw and flattened.isdisjoint(node.output):
            found.append(node)
        if from_raw and node.op_type in ("Mul", "Add", "Sub", "Div", "QuantizeLinear", "DequantizeLinear", "Cast"):
            raw.update(node.output)
    return found


@pytest.mark.parametrize("name", PLAIN)
def test_convolutions_have_no_transpositions_around_them(artifacts, name):
    """One, where the image comes in."""
    graph = loaded(artifacts[name]).graph
    assert [node.op_type for node in graph.node].count("Transpose") == 1
    assert transposes(graph) == []


@pytest.mark.slow
def test_no_family_has_transpositions_around_convolutions(tmp_path, python):
    """One where the image comes in, one more where a map is flattened; ResNet-50 and Inception-v3 at full size too."""
    import onnx

    script = Path(__file__).parents[1] / "formats" / "convert_families.py"
    names = (*CONVOLUTIONAL, "resnet50", "inception_v3")
    process = python(script, tmp_path, *(f"{name}=onnx" for name in names), warm=True)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    for name in names:
        graph = onnx.load(tmp_path / name / "onnx" / "model.onnx").graph
        assert transposes(graph) == [], name
        assert not {"Shape", "Gather", "Loop"} & {node.op_type for node in graph.node}, name
        assert {"image"} == {value.name for value in graph.input}


def test_float16_is_inside_and_float32_outside(artifacts):
    """Every kernel is float16 at half the size; what scales raw values stays float32."""
    model, types = loaded(artifacts["onnx_fp16"]), {}
    for tensor in model.graph.initializer:
        types[tensor.name] = tensor.data_type
    kernels = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    assert {types[name] for name in kernels} == {10}
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {1}
    assert artifacts["onnx_fp16"].manifest["bytes"] < 0.6 * artifacts["onnx"].manifest["bytes"]
    # The control: the float file has no such kernel.
    assert 10 not in {tensor.data_type for tensor in loaded(artifacts["onnx"]).graph.initializer}


def growing(factor):
    """A graph of two matrix products; the values between them are `factor` times as large as those at both ends."""
    import onnx

    helper = onnx.helper
    eye = np.eye(4, dtype="float32")
    weights = {"grow": eye * factor, "shrink": eye / factor, "half": eye / 2}
    nodes = [
        helper.make_node("MatMul", ["x", "half"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "grow"], ["b"], "second"),
        helper.make_node("MatMul", ["b", "shrink"], ["c"], "third"),
        helper.make_node("MatMul", ["c", "half"], ["y"], "fourth"),
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["n", 4]) for name in ("x", "y")]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "growing", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_values_beyond_float16_stay_float32():
    """Both products around these values stay float32; without that the values overflow, and the output differs."""
    import onnxruntime

    x = np.linspace(-2, 2, 8, dtype="float32").reshape(2, 4)
    excluded = too_large(growing(1e6), [{"x": x}])
    assert excluded == {"MatMul_1", "MatMul_2"}
    assert too_large(growing(2.0), [{"x": x}]) == set()

    def run(model):
        import onnx

        onnx.checker.check_model(model, full_check=True)
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]

    np.testing.assert_allclose(run(halve(growing(1e6), excluded)), x / 4, atol=1e-3)
    assert np.abs(run(halve(growing(1e6), ())) - x / 4).max() > 0.1


@pytest.fixture
def outside(variants, tmp_path):
    """A copy of the model with its weights in another file, and a function that changes their location."""
    import onnx

    shutil.copytree(variants[EXTERNAL].folder, tmp_path / "model")
    path = tmp_path / "model" / "model.onnx"

    def point(location):
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
        path.write_bytes(model.SerializeToString())
        return path

    return point


def test_weights_may_be_in_another_file(variants, artifacts, outside):
    """The weights are in one file in the same folder; the manifest names it, and the runtime reads it."""
    files = variants[EXTERNAL].manifest["files"]
    assert {"model.onnx", "model.onnx" + SUFFIX} < files.keys()
    assert files["model.onnx"]["bytes"] < files["model.onnx" + SUFFIX]["bytes"]
    assert "model.onnx" + SUFFIX not in artifacts["onnx"].manifest["files"]
    assert OnnxRuntime(outside("model.onnx.data")).batch is None


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/hostname", "a/../../secret", "C:\\x", "..\\secret", "link", ""]
)
def test_weights_outside_the_folder_are_refused(outside, tmp_path, location):
    """They are refused in one line before anything reads them; symbolic links are followed."""
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    path = outside(location)
    os.symlink(tmp_path / "secret", path.parent / "link")
    with pytest.raises(RunError, match="must be in the file's folder") as refused:
        OnnxRuntime(path)
    assert "\n" not in str(refused.value)


def test_weights_outside_are_found_in_subgraphs(tmp_path):
    """Weights in the attribute of a node, in a graph within a graph, are found."""
    import onnx

    model, helper = growing(2.0), onnx.helper
    hidden = onnx.numpy_helper.from_array(np.zeros(4, "float32"), "hidden")
    hidden.ClearField("raw_data")
    hidden.data_location = onnx.TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../secret")
    inner = helper.make_graph([helper.make_node("Constant", [], ["v"], value=hidden)], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RunError, match="must be in the file's folder"):
        read(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"no model at all", bytes(range(256)) * 9])
def test_unsupported_files_are_one_line(tmp_path, content):
    """The error does not depend on what the parsers read."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(RunError, match=r"Expected a.*ONNX") as refused:
        OnnxRuntime(tmp_path / "model.onnx")
    assert "\n" not in str(refused.value)


def test_missing_weights_are_one_line(outside):
    """The error names the missing file."""
    path = outside("gone.data")
    with pytest.raises(RunError, match=r"without 'gone\.data' next to it"):
        OnnxRuntime(path)


def test_the_spanning_families_are_all_convolutional_ones():
    """A new family of images must be converted above too."""
    small = [name for name in zoo.list_models("*_tiny") if zoo.spec(name).input_shape == (32, 32, 3)]
    assert set(CONVOLUTIONAL) == {name for name in small if "attention" not in zoo.spec(name).tags}
