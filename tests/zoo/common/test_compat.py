"""One test per private API of Keras and TensorFlow: it fails with the name of the symbol that an upgrade changed."""

from __future__ import annotations

import contextlib
import inspect
import os
from pathlib import Path

import keras
import numpy as np
import pytest

from zoo.common import compat
from zoo.common.processor import processor_flags


@contextlib.contextmanager
def relies_on(symbol):
    """Fail with the symbol's name if anything inside fails."""
    try:
        yield
    except Exception as error:
        pytest.fail(f"{symbol} changed in Keras {keras.__version__}: update zoo/common/compat.py ({error!r})")


@pytest.fixture
def model():
    """Two dense layers, the second one shared by two calls, in a functional model."""
    image = keras.Input((4,), name="image")
    shared = keras.layers.Dense(4, name="shared")
    x = shared(shared(keras.layers.Dense(4, name="first")(image)))
    return keras.Model(image, keras.layers.Add(name="sum")([x, image]))


def test_producer(model):
    """A symbolic tensor leads to its layer, any other value to None."""
    with relies_on("KerasTensor._keras_history.operation"):
        assert compat.producer(model.output) is model.get_layer("sum")
        assert compat.producer(np.zeros(3)) is compat.producer(None) is None


def test_is_functional(model):
    """Functional models have a graph; subclassed models do not."""
    with relies_on("Function._nodes_by_depth"):
        assert compat.is_functional(model)
        assert not compat.is_functional(type("Own", (keras.Model,), {})())


def test_before_weights():
    """A function sees the shape of every weight before it is made, and no weight afterwards."""
    seen = []
    with relies_on("keras.layers.Layer.add_weight"):
        with compat.before_weights(lambda layer, shape, dtype: seen.append((layer.name, shape, str(dtype)))):
            keras.layers.Dense(3, name="inside").build((None, 4))
        keras.layers.Dense(3).build((None, 4))
        assert seen == [("inside", (4, 3), "float32"), ("inside", (3,), "float32")]


def test_without_values():
    """Weights made inside stay without values after later scopes; those that waited before still get theirs."""

    def made():
        layer = keras.layers.Dense(3)
        layer.build((None, 4))
        return layer.kernel

    with relies_on("keras.src.backend.common.global_state 'uninitialized_variables'"):
        with keras.StatelessScope():
            waiting = made()
            with keras.StatelessScope(initialize_variables=False), compat.without_values():
                forgotten = made()
        assert waiting.value.shape == (4, 3)
        assert forgotten._value is None


def test_functional_class(model):
    """It is the class of every functional model."""
    with relies_on("keras.src.models.functional.Functional"):
        assert type(model) is compat.functional_class()


def test_after_graph_run(model):
    """Cloning a model runs its graph, and gives the outputs to the clone; another class is unchanged."""
    outputs = []
    kind = type("Own", (compat.functional_class(),), {})
    with relies_on("Functional._run_through_graph in keras.models.clone_model"):
        own = kind(model.input, model.output)
        compat.after_graph_run(kind, lambda *run: outputs.append(run))
        clone = keras.models.clone_model(own)
        assert (own, clone.output) in outputs
        assert type(clone) is kind
        before = len(outputs)
        keras.models.clone_model(model)
        assert len(outputs) == before


def test_unpickle_model(model):
    """What Keras pickles of a model is read by its own function."""
    with relies_on("KerasSaveable._unpickle_model"):
        _, (content,) = model.__reduce__()
        restored = compat.unpickle_model(content)
        np.testing.assert_array_equal(restored(np.ones((1, 4))), model(np.ones((1, 4))))


def test_nodes(model):
    """Nodes come in execution order, and a shared layer has two."""
    with relies_on("Function._nodes_by_depth, keras.src.ops.node.Node"):
        nodes = compat.nodes(model)
        assert [node.operation.name for node in nodes] == ["image", "first", "shared", "shared", "sum"]
        assert [node.is_input for node in nodes] == [True, False, False, False, False]
        assert nodes[1].input_tensors[0] is model.inputs[0]
        assert nodes[-1].outputs == nodes[-1].output_tensors == [model.output]
        assert nodes[-1].arguments.kwargs == {}


def test_inbound_nodes(model):
    """A layer has one node per call; other objects have none."""
    with relies_on("Operation._inbound_nodes"):
        assert len(compat.inbound_nodes(model.get_layer("shared"))) == 2
        assert len(compat.inbound_nodes(model.get_layer("first"))) == 1
        assert compat.inbound_nodes(object()) == []


def test_outbound_nodes(model):
    """The nodes that read a layer's outputs lead to the next layers."""
    with relies_on("Operation._outbound_nodes"):
        (node,) = compat.outbound_nodes(model.get_layer("first"))
        assert node.operation is model.get_layer("shared")
        assert compat.outbound_nodes(model.get_layer("sum")) == []


def test_flatten_layers():
    """Layers inside wrappers and inner models are found."""
    with relies_on("Layer._flatten_layers"):
        inner = keras.Sequential([keras.layers.Bidirectional(keras.layers.LSTM(2))])
        outer = keras.Sequential([inner])
        names = {type(layer).__name__ for layer in compat.flatten_layers(outer, include_self=False)}
        assert {"Sequential", "Bidirectional", "LSTM", "LSTMCell"} <= names
        assert list(compat.flatten_layers(outer, include_self=False, recursive=False)) == [inner]
        assert next(iter(compat.flatten_layers(outer))) is outer


def test_reduction_axes():
    """A batch normalization averages over all axes but its own."""
    with relies_on("BatchNormalization._reduction_axes"):
        layer = keras.layers.BatchNormalization(axis=1)
        layer.build((None, 3, 4))
        assert list(compat.reduction_axes(layer)) == [0, 2]


def test_batch_moments():
    """The function returns mean and variance of the inputs."""
    with relies_on("BatchNormalization._moments"):
        layer = keras.layers.BatchNormalization()
        layer.build((None, 1))
        mean, variance = compat.batch_moments(layer)(keras.ops.convert_to_tensor([[1.0], [3.0]]), None)
        assert (float(mean[0]), float(variance[0])) == (2.0, 1.0)


def test_set_batch_moments():
    """Training normalizes with the moments of the new function, of a layer and of a class."""
    with relies_on("BatchNormalization._moments"):
        layer = keras.layers.BatchNormalization(epsilon=1e-12)
        compat.set_batch_moments(layer, lambda *_: (keras.ops.ones(1), keras.ops.ones(1)))
        assert float(layer(np.full((2, 1), 3.0, "float32"), training=True)[0, 0]) == pytest.approx(2.0)
        own = type("Own", (keras.layers.BatchNormalization,), {})
        compat.set_batch_moments(own, lambda *_: (keras.ops.ones(1), keras.ops.ones(1)))
        assert float(own(epsilon=1e-12)(np.full((2, 1), 3.0, "float32"), training=True)[0, 0]) == pytest.approx(2.0)


def test_set_mask():
    """A layer receives the mask that was attached to its input."""
    with relies_on("Tensor._keras_mask"):
        values = keras.ops.convert_to_tensor(np.array([[[1.0], [100.0]]], "float32"))
        compat.set_mask(values, keras.ops.convert_to_tensor(np.array([[True, False]])))
        assert float(keras.layers.GlobalAveragePooling1D()(values)[0, 0]) == 1.0


def test_get_mask():
    """A masking layer attaches a mask to its output; other values have none."""
    with relies_on("Tensor._keras_mask"):
        outputs = keras.layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
        np.testing.assert_array_equal(compat.get_mask(outputs), [[True, False]])
        assert compat.get_mask(np.zeros(2)) is None


def test_run_graph(model):
    """The functions replace the operations, and the outputs are the model's."""
    names = []

    def recorded(operation):
        def call(*arguments, **options):
            names.append(operation.name)
            return operation(*arguments, **options)

        return call

    with relies_on("Functional._run_through_graph, Functional._standardize_inputs"):
        values = np.ones((2, 4), "float32")
        outputs = compat.run_graph(model, values, recorded)
        np.testing.assert_array_equal(keras.tree.flatten(outputs)[0], model(values))
        assert names == ["first", "shared", "shared", "sum"]


def test_has_training_argument():
    """Dropout takes `training`; Flatten and an operation do not."""
    with relies_on("Layer._call_has_training_arg"):
        assert compat.has_training_argument(keras.layers.Dropout(0.5))
        assert not compat.has_training_argument(keras.layers.Flatten())
        assert not compat.has_training_argument(object())


def test_keras_home(tmp_path):
    """Keras finds a file in the other folder, and asks for it only outside."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "own.txt").write_text("own")
    arguments = {"fname": "own.txt", "origin": "http://127.0.0.1:9/own.txt", "cache_subdir": "models"}
    with relies_on("keras.src.backend.config._KERAS_DIR"):
        with compat.keras_home(str(tmp_path)):
            assert Path(keras.utils.get_file(**arguments)) == tmp_path / "models" / "own.txt"
        with compat.keras_home(None), pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
            keras.utils.get_file(**arguments)


def test_onednn_computes():
    """oneDNN is on where x86 has AVX2, as `import zoo` asks for; it computes bfloat16 with AVX-512."""
    with relies_on("_pywrap_util_port.IsMklEnabled, _pywrap_utils.IsDataTypeSupportedByOneDNNOnThisCPU"):
        found = {dtype: compat.onednn_computes(dtype) for dtype in ("float32", "bfloat16")}
    flags = processor_flags()
    on = os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1" and "avx2" in flags
    assert found == {"float32": on, "bfloat16": on and "avx512bw" in flags}


def test_every_function_has_a_test():
    """A function without a canary would break silently."""
    functions = {n for n, f in vars(compat).items() if inspect.isfunction(f) and f.__module__ == compat.__name__}
    assert functions == {name.removeprefix("test_") for name in globals() if name.startswith("test_")} - {
        "every_function_has_a_test"
    }
