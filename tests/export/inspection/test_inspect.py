"""Inspection of model files: what it counts, and damaged, foreign and hostile files in one line."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest

from export.inspection.inspect import inspect, read_artifact
from zoo.common.errors import DataError, ZooError

KEYS = {
    "kind", "bytes", "gzip_bytes", "operators", "weights", "int8_weights", "int8_operators", "float_fallback",
    "unsupported", "inputs", "outputs", "opset", "sparsity", "total_sparsity",
}  # fmt: skip


def test_every_format_is_inspected(artifacts, digits_run):
    """The manifest of every artifact has all fields, with the values that are known from elsewhere."""
    for name, artifact in artifacts.items():
        found = artifact.manifest["inspection"]
        assert found.keys() == KEYS, name
        size = artifact.manifest["bytes"]
        assert found["bytes"] == size, name
        assert 0 < found["gzip_bytes"] < size, name
        assert len(found["sparsity"]) >= 8, name
        assert found["unsupported"] == [], name
        assert sum(found["weights"].values()) >= 18_000, name
        (image,) = found["inputs"]
        assert image["name"] == "image", name
        assert image["shape"][1:] == [8, 8, 1], name
        assert image["shape"][0] == artifact.manifest["batch"], name


def test_int8_fractions_of_formats(artifacts):
    """int8 where it is guaranteed, float where it is not, and no float fallback in a fully quantized format."""
    found = {name: artifact.manifest["inspection"] for name, artifact in artifacts.items()}
    for name in ("tflite", "onnx", "saved_model", "tflite_fp16", "openvino"):
        assert (found[name]["int8_weights"], found[name]["int8_operators"]) == (0.0, 0.0), name
    assert found["tflite_int8"]["int8_operators"] == 1.0
    assert found["tflite_int8"]["float_fallback"] == []
    assert min(found[name]["int8_weights"] for name in ("tflite_int8", "tflite_dynamic", "onnx_int8")) > 0.97
    assert found["tflite_dynamic"]["weights"]["int8"] > 18_000
    # Convolutions stay in floating point in onnx_dynamic, and are named.
    assert len(found["onnx_dynamic"]["float_fallback"]) == found["onnx_dynamic"]["operators"]["Conv"]
    assert found["onnx"]["opset"] == 17
    assert found["tflite"]["opset"] is None


def test_zeros_are_counted_by_layer(tmp_path):
    """The sparsity is exact, also for int8 weights with a zero point."""
    import onnx

    kernel = np.ones((20, 10), "float32")
    kernel.flat[:148] = 0
    stored = np.where(kernel == 0, 7, 50).astype("uint8")
    arrays = {"w": stored, "scale": np.float32(0.1), "zero": np.uint8(7), "v": kernel}
    make = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            make("DequantizeLinear", ["w", "scale", "zero"], ["real"], "cast"),
            make("MatMul", ["x", "real"], ["h"], "first"),
            make("Transpose", ["v"], ["vt"], "turned", perm=[1, 0]),
            make("MatMul", ["h", "vt"], ["y"], "second"),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 20])],
        [onnx.helper.make_tensor_value_info("y", 1, ["n", 20])],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    found = inspect(tmp_path / "model.onnx")
    assert found.sparsity == {"first": pytest.approx(0.74), "second": pytest.approx(0.74)}
    assert found.total_sparsity == pytest.approx(0.74)
    assert found.weights == {"float32": 200, "uint8": 200}
    assert found.float_fallback == ("first", "second")
    assert found.to_json()["inputs"] == [{"name": "x", "shape": [None, 20], "dtype": "float32"}]


def damaged(content):
    """Yield a file's content truncated at several positions, filled with noise, and empty."""
    draw = np.random.default_rng(0)
    for fraction in (0.001, 0.01, 0.2, 0.5, 0.9, 0.999):
        yield f"cut at {fraction}", content[: int(fraction * len(content))]
    yield "empty", b""
    yield "noise", draw.bytes(len(content))
    yield "noise after the header", content[:16] + draw.bytes(2000)
    for place in draw.integers(0, len(content), 12):
        yield f"byte {place}", content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def refused(path):
    """Whether a file is refused in one line; the inspection of a readable one has all fields."""
    try:
        found = inspect(path).to_json()
    except ZooError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    assert len(message) < 700
    if message:
        return True
    assert found.keys() == KEYS
    json.dumps(found, allow_nan=False)
    return False


@pytest.mark.parametrize("name", ["tflite_int8", "onnx_int8", "openvino", "keras"])
def test_damaged_files_are_one_line(name, artifacts, digits_run, tmp_path):
    """Truncated, changed, empty, noise: never a traceback; truncated files and noise are refused."""
    path = digits_run.model_path if name == "keras" else artifacts[name].path
    if path.is_dir():
        shutil.copytree(path, tmp_path, dirs_exist_ok=True)
        path = tmp_path / "model.xml"
    copy = tmp_path / path.name
    for what, content in damaged(path.read_bytes()):
        copy.write_bytes(content)
        assert refused(copy) or what.startswith("byte"), what


def test_damaged_saved_models_are_one_line(artifacts, tmp_path):
    """Graph, variables and index, each truncated, changed or missing."""
    shutil.copytree(artifacts["saved_model"].path, tmp_path / "1")
    for name in ("saved_model.pb", "variables/variables.index"):
        file = tmp_path / "1" / name
        whole = file.read_bytes()
        for what, content in damaged(whole):
            file.write_bytes(content)
            assert refused(tmp_path / "1") or what.startswith("byte") or name != "saved_model.pb", what
        file.write_bytes(whole)
    assert not refused(tmp_path / "1")
    data = next((tmp_path / "1" / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:1000])
    assert refused(tmp_path / "1")
    (tmp_path / "1" / "saved_model.pb").unlink()
    assert refused(tmp_path / "1")


def test_files_of_another_kind_are_one_line(artifacts, tmp_path, zoo_command):
    """A wrong suffix, an empty folder, a text file, and a missing path; exit code 2."""
    shutil.copy(artifacts["tflite"].path, tmp_path / "model.onnx")
    shutil.copy(artifacts["onnx"].path, tmp_path / "model.tflite")
    (tmp_path / "model.keras").write_text("no zip")
    (tmp_path / "model.txt").write_text("a text")
    (tmp_path / "empty").mkdir()
    for name in ("model.onnx", "model.tflite", "model.keras", "model.txt", "empty", "nowhere"):
        code, out, err = zoo_command("inspect", tmp_path / name)
        assert (code, out, err.count("\n")) == (2, "", 1), (name, err)
        assert name in err


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model.xml", "saved_model.pb"])
def test_large_files_are_not_read(tmp_path, name):
    """A sparse file of a terabyte is refused by its size or its first bytes."""
    with open(tmp_path / name, "wb") as file:
        file.truncate(1 << 40)
    path = tmp_path if name.endswith(".pb") else tmp_path / name
    with pytest.raises(ZooError, match=r"1,099,511,627,776 bytes|TFL3") as caught:
        inspect(path)
    assert "\n" not in str(caught.value)


def test_zip_bombs_are_refused(tmp_path):
    """A .keras file of a few kilobytes that would unpack to a hundred megabytes."""
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", b"\0" * (100 << 20))
    assert (tmp_path / "bomb.keras").stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"unpack to 104,857,602"):
        inspect(tmp_path / "bomb.keras")


def test_a_keras_file_is_not_executed(tmp_path, digits_run):
    """A class of another module is reported as unsupported and not imported."""
    with zipfile.ZipFile(digits_run.model_path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    config = json.loads(content["config.json"])
    layer = config["config"]["layers"][3]
    layer |= {"class_name": "Evil", "module": "no_such_module", "registered_name": "Evil"}
    content["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as file:
        for name, value in content.items():
            file.writestr(name, value)
    assert inspect(tmp_path / "model.keras").unsupported == ("Evil",)


def test_inspect_command(artifacts, zoo_command):
    """A table for an artifact, JSON for its folder."""
    code, out, _ = zoo_command("inspect", artifacts["tflite_int8"].path)
    assert code == 0
    assert "CONV_2D" in out
    assert "image (1, 8, 8, 1) int8" in out
    code, out, _ = zoo_command("inspect", artifacts["onnx_int8"].folder, "--json")
    assert (code, json.loads(out)) == (0, artifacts["onnx_int8"].manifest["inspection"])


@pytest.mark.parametrize("constant_first", [False, True])
def test_scaled_activations_are_no_weights(constant_first, tmp_path):
    """A product of a constant and an activation, in either order, before a layer with int8 weights."""
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter([-1, 4], openvino.Type.f32, "x")
    pair = [ops.constant(np.full((1, 4), 2.0, "float32")), x]
    scaled = ops.multiply(*(pair if constant_first else pair[::-1]))
    kernel = ops.multiply(ops.convert(ops.constant(np.ones((4, 3), "int8")), "f32"), np.float32(0.5))
    product = ops.matmul(scaled, kernel, transpose_a=False, transpose_b=False)
    openvino.save_model(openvino.Model([product], [x], "scaled"), tmp_path / "m.xml", compress_to_fp16=False)
    graph = read_artifact(tmp_path / "m.xml").graph
    (found,) = [operator for operator in graph.operators if operator.kind == "MatMul"]
    assert [graph.weights[place].bits for place in found.kernels] == [8]
