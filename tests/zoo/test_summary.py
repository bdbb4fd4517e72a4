"""Summaries of models, counted by hand; the conformance suite compares the record with built models."""

from __future__ import annotations

import json
import math

import pytest

import zoo
from zoo import counts
from zoo.specs import counts as specs_counts
from zoo.specs.registry import models
from zoo.summary import summarize

NAMES = zoo.list_models()


def test_every_model_is_recorded():
    """The file has the names of the registry, one a line, in their order."""
    text = specs_counts.FILE.read_text(encoding="utf-8")
    assert list(json.loads(text)) == NAMES
    assert text == specs_counts.to_text(json.loads(text))
    assert [line.split('"')[1] for line in text.splitlines()[1:-1]] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_stages_add_up(name):
    """No parameter and no multiply-add is lost or counted twice, and names are unique."""
    spec, content = zoo.spec(name), counts.counts(name)
    stages = content["stages"]
    assert sum(s["params"] for s in stages) == spec.params
    assert sum(s["gmacs"] for s in stages) == pytest.approx(content["gmacs"], rel=1e-3)
    assert len({s["name"] for s in stages}) == len(stages)
    assert stages[-1]["name"] == "head"
    assert stages[-1]["output"] == [*spec.input_shape[-1:], spec.classes][spec.task in ("classify", "embed") :]
    assert all(s["layers"] for s in stages)
    assert content["memory"]["training_mib"] >= content["memory"]["inference_mib"] > 0
    assert content["memory"]["weights_mib"] >= float(f"{spec.params * 4 / 2**20:.4g}")


@pytest.mark.parametrize("name", NAMES)
def test_maps_end_the_stages(name):
    """Each marked map is what its stage puts out; strides are powers of two that grow, or one for all tokens."""
    spec, content = zoo.spec(name), counts.counts(name)
    info = spec.feature_info
    assert list(info) == content["features"]
    assert [f["level"] for f in info] == list(range(len(info)))
    assert all(f["stride"] == 2 ** round(math.log2(f["stride"])) for f in info)
    if spec.inputs != ("image",):
        assert info == ()
        return
    outputs = [stage["output"] for stage in content["stages"][:-1]]
    assert [f["channels"] for f in info] == [output[-1] for output in outputs]
    strides = [f["stride"] for f in info]
    if {len(output) for output in outputs} == {2}:
        assert len(set(strides)) == 1
        assert all(0 < output[0] - (spec.input_shape[0] // strides[0]) ** 2 <= 2 for output in outputs)
        return
    assert strides == sorted(set(strides))
    for stride, output in zip(strides, outputs, strict=True):
        assert abs(math.log2(spec.input_shape[0] / output[0] / stride)) <= 0.5


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("cnn_tiny", "resnet_tiny", "deit_micro_tiny") else pytest.mark.slow)
        for name in zoo.list_models("*_tiny")
    ],
)
def test_feature_info_is_what_features_returns(name):
    """The levels of `zoo.features` have these layers and channels."""
    info = zoo.spec(name).feature_info
    if info:
        maps = zoo.features(name).outputs
        assert [f["channels"] for f in info] == [x.shape[-1] for x in maps]
        model = zoo.get(name)
        for feature, x in zip(info, maps, strict=True):
            made = model.get_layer(feature["layer"]).output.shape
            assert made[-1:] == x.shape[-1:] if len(made) == 3 else made == x.shape  # tokens are laid out as a map


# (layer, input shape, multiply-adds by hand)
BY_HAND = [
    (lambda layers: layers.Conv2D(6, 3, padding="same"), (8, 8, 4), 8 * 8 * 6 * 9 * 4),
    (lambda layers: layers.Conv2D(6, 3, strides=2), (9, 9, 4), 4 * 4 * 6 * 9 * 4),
    (lambda layers: layers.Conv2D(6, 3, groups=2, padding="same"), (8, 8, 4), 8 * 8 * 6 * 9 * 2),
    (lambda layers: layers.Conv2D(6, (1, 5), padding="same"), (8, 8, 4), 8 * 8 * 6 * 5 * 4),
    (lambda layers: layers.Conv1D(6, 3, padding="same"), (8, 4), 8 * 6 * 3 * 4),
    (lambda layers: layers.Conv3D(2, 3, padding="same"), (4, 4, 4, 3), 64 * 2 * 27 * 3),
    (lambda layers: layers.DepthwiseConv2D(3, padding="same"), (8, 8, 4), 8 * 8 * 4 * 9),
    (lambda layers: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (8, 8, 4), 8 * 8 * 8 * 9),
    (lambda layers: layers.SeparableConv2D(6, 3, padding="same"), (8, 8, 4), 8 * 8 * (4 * 9 + 4 * 6)),
    (lambda layers: layers.Conv2DTranspose(6, 3, strides=2, padding="same"), (8, 8, 4), 8 * 8 * 4 * 9 * 6),
    (lambda layers: layers.Dense(5), (7,), 35),
    (lambda layers: layers.Dense(5), (3, 7), 3 * 35),
    (lambda layers: layers.EinsumDense("abc,cde->abde", (3, 2, 5)), (3, 7), 3 * 7 * 2 * 5),
    (lambda layers: layers.EinsumDense("...x,xy->...y", 5), (7,), 35),
    (lambda layers: layers.BatchNormalization(), (8, 8, 4), 0),
    (lambda layers: layers.MaxPooling2D(), (8, 8, 4), 0),
]


@pytest.mark.parametrize(("make", "shape", "expected"), BY_HAND)
def test_multiply_adds_by_hand(make, shape, expected):
    """The count of one layer equals its formula."""
    import keras

    inputs = keras.Input(shape)
    content = summarize(keras.Model(inputs, make(keras.layers)(inputs)), [])
    assert content["gmacs"] == float(f"{expected / 1e9:.4g}")


def test_attention_by_hand():
    """Scores take a product for each pair of vectors, values one for each weight; an embedding lookup takes none."""
    import keras

    from zoo.layers.lazy import sequence

    ids = keras.Input((5,), dtype="int32")
    embedding = sequence.TokenEmbedding(11, 12, name="embedding")
    x = embedding(ids)
    q, k, v = sequence.SplitHeads(2, 3, name="split")(keras.layers.Dense(36, name="qkv")(x))
    weights = sequence.AttentionWeights(name="weights")([q, k])
    x = sequence.AttentionValues(name="values")([weights, v])
    content = summarize(keras.Model(ids, embedding(x, reverse=True)), [])
    dense, attention, logits = 5 * 12 * 36, 2 * 2 * 5 * 5 * 6, 5 * 12 * 11
    assert content["gmacs"] == (dense + attention + logits) / 1e9
    stages = {stage["name"]: (stage["params"], stage["gmacs"]) for stage in content["stages"]}
    # The shared table belongs to the stage of its first use; the head is the tied logits.
    assert stages == {
        "embedding": (11 * 12, 0),
        "qkv": (13 * 36, (dense + attention) / 1e9),
        "head": (0, logits / 1e9),
    }


def test_map_outside_the_model():
    """A map reshaped from tokens outside the model is described by the layer of the tokens."""
    import keras

    from zoo.layers.lazy import sequence

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 2, 2, name="patches_conv")(inputs)
    x = sequence.Ungrid(name="tokens")(x)
    outside = sequence.Grid(4, 4, name="map")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(sequence.TakeToken(name="pool")(x)))
    content = summarize(model, [outside])
    assert content["features"] == [{"level": 0, "layer": "tokens", "stride": 2, "channels": 4}]
    assert [(s["name"], s["output"]) for s in content["stages"]] == [("patches", [16, 4]), ("head", [3])]


def test_shared_layer_counts_for_every_call():
    """A layer that is called twice computes twice and has its parameters once."""
    import keras

    inputs, dense = keras.Input((4,)), keras.layers.Dense(4, name="dense")
    content = summarize(keras.Model(inputs, dense(dense(inputs))), [])
    assert content["gmacs"] == 32 / 1e9
    assert content["stages"] == [
        {"name": "head", "layers": {"Dense": 2}, "output": [4], "params": 20, "gmacs": 32 / 1e9}
    ]


def test_derived_layer_counts_as_what_it_derives_from():
    """A family's own kind of convolution is one."""
    import keras

    class Own(keras.layers.Conv2D):
        pass

    inputs = keras.Input((8, 8, 4))
    content = summarize(keras.Model(inputs, Own(6, 1, name="own")(inputs)), [])
    assert content["gmacs"] == 8 * 8 * 6 * 4 / 1e9
    assert content["stages"][0]["layers"] == {"Own": 1}


def test_memory_by_hand():
    """A shortcut stays alive until it is added; other tensors are freed after their last use."""
    import keras

    layers = keras.layers
    inputs = keras.Input((1024, 256))  # 1 MiB
    x = layers.ReLU(name="a")(inputs)
    y = layers.ReLU(name="b")(x)
    y = layers.ReLU(name="c")(y)
    model = keras.Model(inputs, layers.Add(name="sum")([x, y]))
    # Alive at once: x, b's output and c's; and then x, c's and the sum.
    assert summarize(model, [])["memory"] == {"weights_mib": 0.0, "inference_mib": 3.0, "training_mib": 5.0}
    without_sum = keras.Model(inputs, y)
    assert summarize(without_sum, [])["memory"] == {"weights_mib": 0.0, "inference_mib": 2.0, "training_mib": 4.0}
    normalized = keras.Model(inputs, layers.BatchNormalization()(inputs))
    assert summarize(normalized, [])["memory"]["weights_mib"] == float(f"{4 * 256 * 4 / 2**20:.4g}")


def test_parallel_branch_is_not_part_of_the_stage():
    """A stage is what its map depends on, whatever else runs before."""
    import keras

    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="stem_conv")(inputs)
    marked = layers.Conv2D(4, 1, name="body_conv2")(layers.Conv2D(4, 1, name="body_conv1")(x))
    outside = layers.Flatten(name="outside")(layers.Conv2D(2, 1, name="outside_conv")(x))
    out = layers.Concatenate(name="join")([outside, layers.Flatten(name="flat")(marked)])
    content = summarize(keras.Model(inputs, out), [x, marked])
    assert [(s["name"], sum(s["layers"].values())) for s in content["stages"]] == [
        ("stem", 1),
        ("body", 2),
        ("head", 4),
    ]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([["stem"], ["stage1_a", "stage1_b"]], ["stem", "stage1", "head"]),
        ([["block1_a"], ["block2_a", "block3_a", "block10_a"]], ["block1", "block2-10", "head"]),
        ([["stem"], ["stage1_a", "stage1_b", "stage1_c", "next"]], ["stem", "stage1", "head"]),
        ([["conv_1"], ["conv_2", "conv_3"]], ["conv", "conv_3", "head"]),
        ([["conv_1"], ["conv_1_of_the_second", "conv_1_once_more"]], ["conv", "conv_1", "head"]),
        ([["a"], ["a_" + "b" * 20]], ["a", "level 1", "head"]),
        ([["mixed5b", "mixed5d"], ["one", "two"]], ["mixed5b-5d", "one-two", "head"]),
    ],
)
def test_names_of_stages(parts, expected):
    """Stages have the common prefix of their layers, or a number if there is none."""
    import keras

    inputs = x = keras.Input((4,))
    maps = []
    for names in parts:
        for name in names:
            x = keras.layers.Dense(4, name=name)(x)
        maps.append(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    assert [s["name"] for s in summarize(model, maps)["stages"]] == expected


def test_model_of_someone_else_is_counted():
    """A name that is not in the file is built; another model of the same name is counted separately."""

    def register(width):
        from zoo.common.lazy import keras

        @zoo.register_model(
            "theirs", zoo.ModelSpec((8, 8, 3), 5, 4), params=10 * width + 5 * (width + 1), family="theirs"
        )
        def theirs(x, head):
            return head(head.level(keras.layers.Conv2D(width, 3, 2, "same", use_bias=False, name="conv")(x)))

    try:
        for width in (2, 3):
            register(width)
            spec = zoo.spec("theirs")
            assert spec.gmacs == float(f"{(16 * width * 27 + 5 * width) / 1e9:.4g}")
            assert spec.feature_info == ({"level": 0, "layer": "conv", "stride": 2, "channels": width},)
            models._entries.pop("theirs")
    finally:
        models._entries.pop("theirs", None)
        models._origins.pop("theirs", None)


def test_facts_belong_to_the_caller():
    """Changing a returned summary does not change later ones."""
    zoo.spec("resnet50").feature_info[0]["channels"] = 0
    counts.counts("resnet50")["stages"].clear()
    assert zoo.spec("resnet50").feature_info[0]["channels"] == 64
    assert counts.counts("resnet50")["stages"]


def test_other_options_are_counted_otherwise():
    """The control: what is built with other classes is not what is recorded."""
    from zoo.build import Request, construct

    changed = summarize(*construct(models["resnet_tiny"], Request(classes=11), {}))
    recorded = counts.counts("resnet_tiny")
    assert changed != recorded
    assert changed["features"] == recorded["features"]


def test_facts_need_no_keras(python):
    """Recorded counts are available without building the model."""
    code = "import sys, zoo; s = zoo.spec('resnet50'); print(s.gmacs, len(s.feature_info))\n"
    code += "print(*{'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
    out, err = python("-c", code).communicate(timeout=60)
    assert out.split("\n") == ["4.089 5", "", ""], err
