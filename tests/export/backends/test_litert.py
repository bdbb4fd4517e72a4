"""LiteRT files from inside: few bits, metadata for the Task library, and what plain LiteRT refuses."""

from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest

import export
from export.backends.litert.file import read
from export.backends.litert.runtime import LiteRtRuntime, custom_operators


@pytest.fixture(scope="module")
def content(artifacts):
    """The file of each LiteRT format."""
    return {name: a.path.read_bytes() for name, a in artifacts.items() if name.startswith("tflite")}


LITERT = ("tflite", "tflite_dynamic", "tflite_fp16", "tflite_int16x8", "tflite_int4", "tflite_int8")


class Table:
    """A flatbuffers table read by field numbers alone, with nothing of what wrote it."""

    def __init__(self, data, place=None):
        self.data = data
        self.place = self._number("<u4", 0) if place is None else place

    def _number(self, kind, place):
        return int(np.frombuffer(self.data, kind, 1, place)[0])

    def _field(self, number):
        """The position of a field, 0 if it is absent."""
        table = self.place - self._number("<i4", self.place)
        entry = 4 + 2 * number
        offset = self._number("<u2", table + entry) if entry < self._number("<u2", table) else 0
        return self.place + offset if offset else 0

    def _behind(self, place):
        return place + self._number("<u4", place)

    def number(self, field, kind="<i1"):
        place = self._field(field)
        return self._number(kind, place) if place else 0

    def text(self, field):
        place = self._behind(self._field(field))
        return bytes(self.data[place + 4 : place + 4 + self._number("<u4", place)]).decode()

    def table(self, field):
        return Table(self.data, self._behind(self._field(field)))

    def tables(self, field):
        place = self._behind(self._field(field))
        places = [place + 4 + 4 * i for i in range(self._number("<u4", place))]
        return [Table(self.data, self._behind(p)) for p in places]

    def floats(self, field):
        place = self._behind(self._field(field))
        return np.frombuffer(self.data, "<f4", self._number("<u4", place), place + 4).tolist()


def task_buffers(content):
    """Contents of the buffers called TFLITE_METADATA: fields 4 and 6 of the model."""
    model = Table(content)
    found = []
    for entry in model.tables(6):
        if entry.text(0) == "TFLITE_METADATA":
            place = model.tables(4)[entry.number(1, "<u4")]
            start = place._behind(place._field(0))
            found.append(content[start + 4 : start + 4 + place._number("<u4", start)])
    return found


@pytest.mark.parametrize("name", LITERT)
def test_metadata_of_the_task_library(content, name):
    """By field numbers of the public schema: pixels as they are go in, logits with their labels come out."""
    assert content[name][4:8] == b"TFL3"
    (buffer,) = task_buffers(content[name])
    assert buffer[4:8] == b"M001"
    model = Table(buffer)
    assert (model.text(0), model.text(7)) == ("resnet_tiny", "1.1.0")
    (graph,) = model.tables(3)
    (given,), (out,) = graph.tables(2), graph.tables(3)
    assert (given.text(0), out.text(0)) == ("image", "logits")
    image = given.table(3)
    assert image.number(0) == 2  # ImageProperties
    assert image.table(1).number(0) == 2  # GRAYSCALE
    size = image.table(1).table(1)
    assert (size.number(0, "<u4"), size.number(1, "<u4")) == (8, 8)
    (unit,) = given.tables(4)
    assert unit.number(0) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [1.0])
    assert (given.table(5).floats(0), given.table(5).floats(1)) == ([255.0], [0.0])
    (labels,) = out.tables(6)
    assert (labels.text(0), labels.number(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


@pytest.mark.parametrize("name", LITERT)
def test_labels_are_a_zip_archive_behind_the_file(artifacts, name, tmp_path):
    """One label a line, stored uncompressed, because the Task library reads it in place."""
    with zipfile.ZipFile(artifacts[name].path) as archive:
        assert archive.testzip() is None
        (entry,) = archive.infolist()
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(entry).decode().splitlines() == [str(digit) for digit in range(10)]
    # The control: the content before it is no archive, and runs without it.
    alone = tmp_path / "model.tflite"
    alone.write_bytes(artifacts[name].path.read_bytes()[: entry.header_offset])
    assert not zipfile.is_zipfile(alone)
    assert LiteRtRuntime(alone).metadata == artifacts[name].manifest["metadata"]


def weights(content):
    """Types of what is stored for each operator, by its name."""
    from ai_edge_litert import schema_py_generated as schema

    from export.backends.litert.file import operator_name

    types = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
    model, found = read(content), {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            given = [graph.tensors[i] for i in operator.inputs[1:2]]
            stored = {types[tensor.type] for tensor in given if model.buffers[tensor.buffer].data is not None}
            found.setdefault(operator_name(model, operator), set()).update(stored)
    return found


def test_int4_is_in_dense_layers_alone(content):
    """Convolutions have int8 weights, because their 4-bit kernels are slow."""
    found = weights(content["tflite_int4"])
    assert found["FULLY_CONNECTED"] == {"INT4"}
    assert found["CONV_2D"] == {"INT8"}
    # The control.
    assert weights(content["tflite_dynamic"])["FULLY_CONNECTED"] == {"INT8"}


def test_int16x8_has_no_float_between(content):
    """int8 weights, int16 activations; float32 only at input and output, which have casts."""
    from ai_edge_litert import schema_py_generated as schema

    found = weights(content["tflite_int16x8"])
    assert found["CONV_2D"] == found["FULLY_CONNECTED"] == {"INT8"}
    (graph,) = read(content["tflite_int16x8"]).subgraphs
    floats = {i for i, tensor in enumerate(graph.tensors) if tensor.type == schema.TensorType.FLOAT32}
    assert floats == {*graph.inputs, *graph.outputs}


def test_flex_file_is_one_clear_line(tmp_path):
    """The error names what plain LiteRT cannot run; the control is the same file with builtin operators."""
    import tensorflow as tf

    from zoo.common.errors import UnsupportedExport

    def convert(function, *sets):
        spec = tf.TensorSpec((1, 4, 4), tf.float32, "image")
        made = tf.function(function).get_concrete_function(spec)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([made])
        converter.target_spec.supported_ops = list(sets)
        path = tmp_path / "model.tflite"
        path.write_bytes(converter.convert())
        return path

    ours, theirs = tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS
    assert custom_operators(convert(lambda x: x + x, ours, theirs)) == []
    path = convert(tf.linalg.inv, ours, theirs)
    assert custom_operators(path) == ["FlexMatrixInverse"]
    with pytest.raises(UnsupportedExport, match=r"Flex.*FlexMatrixInverse"):
        LiteRtRuntime(path)


@pytest.mark.slow
def test_sequences_are_generated_in_batches(tmp_path):
    """Two parts of batch 4, in float and in int8, generate for ten sources the tokens of batch 1."""
    import zoo
    from export.backends.litert.runtime import LiteRtGenerator
    from export.core.format import parse_format
    from export.core.samples import take_examples
    from export.source.source import SourceModel
    from zoo import PreprocessingConfig
    from zoo.specs.text import START

    draw = np.random.default_rng(0)
    tokens = draw.integers(START + 2, 64, (2, 10, 16)).astype("int32")
    given = {"source": tokens[0], "target": tokens[1]}
    labels = [str(i) for i in range(64)]
    source = SourceModel(
        zoo.get("transformer_tiny"), PreprocessingConfig(), labels, lambda count: take_examples(given, count), tmp_path
    )
    for text in ("tflite", "tflite_int8"):
        written = []
        for options in ("", ":batch=4"):
            wanted = parse_format(f"{text}{options}")
            runtime = LiteRtGenerator(source.artifact_path(wanted.format.name, wanted.options))
            written.append((runtime.batch, runtime.generate(tokens[0])))
        assert [batch for batch, _ in written] == [1, 4]
        assert written[0][1].shape == (10, 16)
        np.testing.assert_array_equal(written[0][1], written[1][1])


@pytest.mark.slow
@pytest.mark.parametrize("compress", ["qat:epochs=1", "mixed_precision:0.05"])
def test_formats_that_compressions_write_have_it_all(copied, tmp_path, compress):
    """Files that qat and mixed_precision write have the metadata of the Task library and the requested dtypes."""
    wanted = "tflite_int8:input=uint8,output=float32"
    (artifact,) = export.convert(copied(tmp_path / "run"), wanted, compress=compress)
    assert artifact.name.startswith("tflite_int8+input=uint8+output=float32-")
    assert len(task_buffers(artifact.path.read_bytes())) == 1
    with zipfile.ZipFile(artifact.path) as archive:
        assert archive.namelist() == ["labels.txt"]
    runtime = export.load(artifact.path)
    assert [t.dtype for t in (*runtime.inputs, *runtime.outputs)] == ["uint8", "float32"]


@pytest.mark.slow
def test_int16x8_of_a_transformer(tmp_path):
    """Layer normalization in int16, but for its root; no other operator is float32, and the control has another one."""
    import zoo
    from export.backends.litert.file import operator_name, schema
    from export.source.source import SourceModel

    draw, model = np.random.default_rng(0), zoo.get("vit_micro_tiny")
    for variable in model.weights:
        if variable.name == "token":
            # As large as the patches next to it, as after training.
            variable.assign(draw.uniform(-1.0, 1.0, variable.shape))
    images = draw.integers(0, 256, (16, 32, 32, 3)).astype("float32")
    pixels = zoo.PreprocessingConfig((127.5,), (60.0,))
    source = SourceModel(model, pixels, list(map(str, range(10))), lambda count: images[:count], tmp_path)

    def floats(name):
        model, found = read(source.artifact_path(name).read_bytes()), set()
        for graph in model.subgraphs:
            for operator in graph.operators:
                used = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
                if any(tensor.type == schema.TensorType.FLOAT32 for tensor in used):
                    found.add(operator_name(model, operator))
        return found - {"QUANTIZE", "DEQUANTIZE"}

    assert floats("tflite_int16x8") == {"RSQRT"}
    assert {"SQUARED_DIFFERENCE", "FULLY_CONNECTED"} < floats("tflite")
    logits, wanted = (
        LiteRtRuntime(source.artifact_path("tflite_int16x8"))(images),
        source.model.predict(images, verbose=0),
    )
    assert np.abs(logits - wanted).max() <= 0.05 * np.abs(wanted).max()


def test_int8_of_operators_that_the_quantizer_leaves_in_float(tmp_path):
    """A sign is a product, a reverse order a gather, and a part of a split that nothing reads as the others."""
    x = keras.Input((12,), name="x")
    parts = keras.ops.split(keras.layers.Dense(12)(x), 3, axis=-1)
    joined = keras.ops.concatenate([-parts[0], keras.ops.flip(parts[2], axis=1)], axis=-1)
    model = keras.Model(x, keras.layers.Dense(3)(joined))
    rows = np.random.default_rng(0).normal(size=(60, 12)).astype("float32")
    artifacts = export.convert(model, ["tflite", "tflite_int8"], calibration=rows, out=tmp_path / "out")
    operators = [export.inspect(artifact.path).operators for artifact in artifacts]
    kinds = ("NEG", "REVERSE_V2", "SPLIT", "MUL", "GATHER")
    # The control: the float file has them.
    assert [operators[0].get(kind) for kind in kinds] == [1, 1, 1, None, None]
    assert [operators[1].get(kind) for kind in kinds] == [None, None, 1, 1, 1]
    assert export.inspect(artifacts[1].path).float_fallback == ()
    expected = model.predict(rows, verbose=0)
    # Ranges may clip the rarest rows.
    assert np.sqrt(np.mean((export.load(artifacts[1].path)(rows) - expected) ** 2)) < 0.1 * expected.std()
