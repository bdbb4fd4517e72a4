"""A foreign file is inspected before a runtime opens it: what does more than compute is refused, and nothing runs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import export
from export.backends.litert import file as litert
from export.backends.litert.runtime import LiteRtRuntime
from export.backends.onnx.runtime import OnnxRuntime
from export.backends.openvino.runtime import OpenVinoRuntime
from export.backends.tensorflow.inspect import PLUMBING
from export.backends.tensorflow.operators import CHECKPOINT, PURE
from export.backends.tensorflow.runtime import Signatures
from export.backends.tensorflow.safety import check_operators
from export.core import compat
from export.core.manifest import NAME, write_manifest
from zoo.common.errors import RunError, ZooError


@pytest.fixture
def target(tmp_path):
    """The file that hostile models write."""
    return tmp_path / "written.txt"


def saved(folder, serve, **attributes):
    """A SavedModel of one function of a float32 vector, with more attributes of its root."""
    import tensorflow as tf

    root = tf.Module()
    root.scale = tf.Variable(2.0)
    for name, value in attributes.items():
        setattr(root, name, value)
    call = tf.function(lambda x: {"y": serve(x) * root.scale}, input_signature=[tf.TensorSpec([None], "float32", "x")])
    tf.saved_model.save(root, str(folder), signatures={"serving_default": call.get_concrete_function()})
    return folder


def edited(folder, edit):
    """A SavedModel with another protobuf message."""
    content = compat.saved_model_message()
    file = folder / "saved_model.pb"
    content.ParseFromString(file.read_bytes())
    edit(content)
    file.write_bytes(content.SerializeToString())
    return folder


def then(action, x):
    """The input, after an operator ran."""
    import tensorflow as tf

    with tf.control_dependencies([action]):
        return tf.identity(x)


def hostile(target):
    """Functions of a vector that do more than compute, by the operator that must be named."""
    import tensorflow as tf

    def write(x):
        return then(tf.io.write_file(str(target), "x"), x)

    nested = tf.function(write)
    raw, none, place = tf.raw_ops, [""], str(target)

    def python(wrap):
        return lambda x: tf.ensure_shape(wrap(lambda v: v, [x], "float32"), [None])

    def length(value, x):
        return x + tf.cast(tf.size(value), "float32")

    def save(x):
        return then(raw.SaveV2(prefix=place, tensor_names=["x"], shape_and_slices=none, tensors=[x]), x)

    def restore(x):
        return x + raw.RestoreV2(prefix=place, tensor_names=["x"], shape_and_slices=none, dtypes=["float32"])[0]

    def constant(x):
        return x + raw.ImmutableConst(dtype="float32", shape=[1], memory_region_name="/etc/passwd")

    def debug(x):
        return raw.DebugIdentityV3(
            input=x, device_name="d", tensor_name="x:0", io_index=0, debug_urls=[f"file://{place}"], gated_grpc=False
        )

    yield "WriteFile", write
    yield "ReadFile", lambda x: length(tf.io.read_file("/etc/hostname"), x)
    yield "MatchingFiles", lambda x: length(tf.io.matching_files("/*"), x)
    yield "PrintV2", lambda x: then(tf.print("x", output_stream=f"file://{place}"), x)
    yield "SaveV2", save
    yield "RestoreV2", restore
    yield "EagerPyFunc", python(tf.py_function)
    yield "PyFunc", python(tf.numpy_function)
    yield "ImmutableConst", constant
    yield r"T\w+Dataset", lambda x: length(tf.data.TextLineDataset("/etc/hostname").cardinality(), x)
    yield "DebugIdentityV3", debug
    yield "WriteFile", nested
    yield "WriteFile", lambda x: tf.cond(tf.reduce_sum(x) > 1e9, lambda: nested(x), lambda: x)
    yield "WriteFile", lambda x: tf.while_loop(lambda i, _: i < 1, lambda i, v: (i + 1, nested(v)), [0, x])[1]
    yield "WriteFile", lambda x: tf.map_fn(lambda v: nested(v[None])[0], x)


def test_operators_that_do_more_than_compute_are_refused(tmp_path, target):
    """At any depth, in one line that names the operator and its function; nothing is loaded."""
    for number, (operator, serve) in enumerate(hostile(target)):
        folder = saved(tmp_path / f"model{number}", serve)
        target.unlink(missing_ok=True)
        with pytest.raises(RunError, match=f"operator {operator} in the (function|main graph)") as caught:
            Signatures(folder)
        assert "\n" not in str(caught.value)
        assert not target.exists()


def test_models_that_only_compute_are_loaded(tmp_path):
    """The controls: loops, conditions, strings, images, random numbers and tables of assets."""
    import tensorflow as tf

    words = tmp_path / "words.txt"
    words.write_text("one\ntwo\n")
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(words), "string", tf.lookup.TextFileIndex.WHOLE_LINE, "int64", tf.lookup.TextFileIndex.LINE_NUMBER
        ),
        1,
    )

    def serve(x):
        images = tf.io.decode_image(tf.io.encode_png(tf.zeros((2, 2, 3), "uint8")), expand_animations=False)
        ids = tf.cast(table.lookup(tf.strings.split(["two one"]).values), "float32")
        more = tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x) + tf.random.uniform([]) * 0.0
        return more + tf.reduce_sum(ids) + tf.reduce_sum(tf.cast(images, "float32"))

    folder = saved(tmp_path / "model", serve, table=table)
    found = Signatures(folder).call("serving_default", {"x": np.ones(1, "float32")})
    assert found["y"] == pytest.approx([4.0])


def test_what_runs_while_a_model_is_loaded_is_refused(tmp_path, target):
    """An initializer writes a file as soon as TensorFlow loads the model: the control shows that it does."""
    import tensorflow as tf
    from tensorflow.python.trackable.resource import CapturableResource

    class Writer(CapturableResource):
        """A resource that TensorFlow initializes while it loads a model."""

        def _create_resource(self):
            return tf.raw_ops.HashTableV2(key_dtype="string", value_dtype="int64")

        def _initialize(self):
            tf.io.write_file(str(target), "x")

    folder = saved(tmp_path / "model", lambda x: x, resource=Writer())
    with pytest.raises(RunError, match="operator WriteFile in the function __inference__initialize"):
        Signatures(folder)
    assert not target.exists()
    tf.saved_model.load(str(folder))
    assert target.exists()


def graph(content):
    """The main graph of a message, with the library of functions."""
    return content.meta_graphs[0].graph_def


def named(content, part):
    """The first function with a part of a name."""
    return next(f for f in graph(content).library.function if part in f.signature.name)


def twice(content):
    """Two functions of one name, the first of which writes."""
    graph(content).library.function.insert(0, named(content, "signature_wrapper"))
    graph(content).library.function[0].node_def.add(name="bad", op="WriteFile")


def reached(content):
    """The function that saves, called by a signature."""
    node = named(content, "signature_wrapper").node_def.add(name="bad", op="StatefulPartitionedCall")
    node.attr["f"].func.name = named(content, "traced_save").signature.name


def outside(content):
    """An asset in another folder."""
    content.meta_graphs[0].asset_file_def[0].filename = "../../../etc/passwd"


def captured(content):
    """A table from the file that a variable names."""
    found = content.meta_graphs[0].object_graph_def
    function = found.concrete_functions[named(content, "initializer").signature.name]
    kinds = [node.WhichOneof("kind") for node in found.nodes]
    place = next(i for i, number in enumerate(function.bound_inputs) if kinds[number] == "asset")
    function.bound_inputs[place] = kinds.index("variable")


EDITS = [
    (twice, "WriteFile"),
    (reached, "(SaveV2|ShardedFilename|MergeV2)"),
    (outside, "lookup table"),
    (captured, "lookup table"),
    (lambda content: named(content, "traced_restore").node_def.add(name="bad", op="WriteFile"), "WriteFile"),
    (lambda content: graph(content).node.add(name="bad", op="ReadFile"), "ReadFile in the main"),
    (lambda content: content.meta_graphs[0].ClearField("object_graph_def"), "TensorFlow 2"),
    (lambda content: content.meta_graphs.add().CopyFrom(content.meta_graphs[0]), "2 graphs"),
]


def test_edited_messages_are_refused(tmp_path):
    """What no writer makes: two functions of a name, a saver that writes, tables of other files, other models."""
    import tensorflow as tf

    words = tmp_path / "words.txt"
    words.write_text("one\n")
    lines = tf.lookup.TextFileIndex
    file = tf.lookup.TextFileInitializer(str(words), "string", lines.WHOLE_LINE, "int64", lines.LINE_NUMBER)
    table = tf.lookup.StaticHashTable(file, -1)
    plain = saved(tmp_path / "plain", lambda x: x + tf.cast(table.lookup(tf.constant(["one"])), "float32"), table=table)
    check_operators(plain)
    for number, (edit, reason) in enumerate(EDITS):
        folder = shutil.copytree(plain, tmp_path / f"edited{number}")
        with pytest.raises(RunError, match=reason):
            check_operators(edited(folder, edit))


def test_constants_of_another_type(tmp_path):
    """Refused before TensorFlow reads them, which would abort the process; in the main graph and in functions."""
    folder = saved(tmp_path / "plain", lambda x: x[1:3] * 2.0)
    check_operators(folder)

    def change(content):
        for function in content.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                if node.op == "Const" and node.attr["dtype"].type == 3:
                    node.attr["value"].tensor.dtype = 19

    with pytest.raises(ZooError, match=r"the constant '.*' in .* has a value of another type"):
        check_operators(edited(folder, change))


def test_damaged_fingerprints(tmp_path, capfd):
    """Refused by the parser, so that TensorFlow logs no traceback; without one, as in older files, all is well."""
    folder = saved(tmp_path / "plain", lambda x: x)
    file = folder / "fingerprint.pb"
    whole = file.read_bytes()
    identifier = type(compat.fingerprint_message()).FromString(whole).uuid.encode()
    for content in (whole[:-1], whole.replace(identifier, b"\xff" * len(identifier)), b"\n\xff\xff"):
        file.write_bytes(content)
        with pytest.raises(Exception, match=r"(?i)pars"):
            check_operators(folder)
    file.unlink()
    check_operators(folder)
    assert "Traceback" not in capfd.readouterr().err


def test_the_list_names_operators_that_exist_and_none_with_effects():
    """The list has TensorFlow's names; names of operators with effects are not on it."""
    import re

    import tensorflow as tf

    known = {name for name in dir(tf.raw_ops) if name[0].isupper()}
    assert known >= CHECKPOINT > PURE
    assert {"Const", "Identity", "While"} <= PURE & PLUMBING
    effects = (
        "Dataset|Iterator|File|Reader|Summary|Queue|PyFunc|Print|Debug|Save|Restore|Checkpoint|Session|Recv|Send|TPU"
    )
    assert [name for name in PURE if re.search(effects, name)] == []
    assert not PURE & {"Abort", "ImmutableConst", "RemoteCall", "LoadAndRemapMatrix", "GenerateVocabRemapping"}


def foreign(artifact, place, replace):
    """A copy of an artifact with another model and a manifest that fits it."""
    shutil.copytree(artifact.folder, place)
    manifest = json.loads((place / NAME).read_text())
    replace(place / manifest["artifact"])
    write_manifest(
        place, {key: manifest[key] for key in manifest if key not in ("bytes", "files", "digest", "version")}
    )
    return place


@pytest.fixture
def hostile_artifact(artifacts, tmp_path, target):
    """An artifact whose SavedModel writes a file, and whose digests are right."""

    def replace(folder):
        shutil.rmtree(folder)
        saved(folder, next(hostile(target))[1])

    return foreign(artifacts["saved_model"], tmp_path / "sets" / "saved_model", replace)


# Each starts a process that imports TensorFlow.
@pytest.mark.parametrize(
    "measure", [export.report, pytest.param(lambda path: export.pick(path, max_ms=1e6), marks=pytest.mark.slow)]
)
def test_no_command_runs_a_foreign_saved_model(measure, hostile_artifact, target):
    """`verify`, `load`, `report`, `pick` and `inspect` of an artifact whose digests are right: a digest is no proof."""
    place = hostile_artifact
    for command in (export.verify, export.load):
        with pytest.raises(ZooError, match=r"WriteFile|of the artifact must be"):
            command(place)
    with pytest.raises(ZooError, match="WriteFile"):
        measure(place.parent)
    assert export.inspect(place).operators["WriteFile"] == 1
    assert not target.exists()


def test_custom_operators_of_other_formats_are_refused(artifacts, tmp_path):
    """TFLite, ONNX, also in nested graphs and functions, and OpenVINO; the files as they were exported are loaded."""
    import onnx

    model = litert.read(artifacts["tflite"].path.read_bytes())
    code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = litert.schema.BuiltinOperator.CUSTOM
    code.customCode = "Mine"
    (tmp_path / "model.tflite").write_bytes(litert.pack(model))
    with pytest.raises(RunError, match="custom operator Mine"):
        LiteRtRuntime(tmp_path / "model.tflite")
    LiteRtRuntime(artifacts["tflite"].path)

    def onnx_file(edit):
        changed = onnx.load(artifacts["onnx"].path)
        edit(changed)
        onnx.save(changed, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    def inside(changed):
        body = onnx.helper.make_graph([onnx.helper.make_node("Open", ["x"], ["y"], domain="com.else")], "body", [], [])
        changed.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))

    def function(changed):
        node = onnx.helper.make_node("Open", ["x"], ["y"], domain="com.else")
        changed.functions.append(onnx.helper.make_function("local", "f", ["x"], ["y"], [node], changed.opset_import))

    for edit in (lambda changed: setattr(changed.graph.node[-1], "domain", "com.else"), inside, function):
        with pytest.raises(RunError, match=r"operator com\.else\."):
            OnnxRuntime(onnx_file(edit))
    OnnxRuntime(artifacts["onnx"].path)


def test_layers_of_openvino_extensions_are_refused(artifacts, tmp_path):
    """A layer of another operator set is named; the model as it was exported is loaded."""
    place = tmp_path / "model"
    shutil.copytree(artifacts["openvino"].path, place)
    text = (place / "model.xml").read_text()
    (place / "model.xml").write_text(text.replace('version="opset1"', 'version="extension"', 1))
    with pytest.raises(RunError, match="of extension"):
        OpenVinoRuntime(place)
    OpenVinoRuntime(artifacts["openvino"].path)
