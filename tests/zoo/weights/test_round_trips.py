"""Architecture options travel with weights: every family, every option, every kind of file gives bit-equal outputs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from keras_cases import CAFFE, KERAS, keras_application
from safetensors import safe_open
from safetensors.numpy import save_file
from weights_cases import FILES, TINY, inputs_for, one_line, randomize, relative_error, saved, slow_unless

import zoo
from zoo.build import effective_options, options_of
from zoo.common.errors import BadOption, ZooError
from zoo.specs.registry import models

# Options that change nothing in inference; a user may choose them freely.
FREE = {
    "dropout", "drop_path", "drop_connect", "attention_dropout", "projection_dropout", "layer_dropout", "zero_init",
    "gate_bias", "l1", "l2", "lean", "sigma",
}  # fmt: skip
# Values for options for which a value cannot be derived from the default.
VALUES = {
    "activation": ["tanh"],
    "norm": ["pre", "post"],
    "pooling": ["mean", "class"],
    "pooler": ["tanh"],
    "distillation": ["average", "none"],
    "positions": ["sinusoidal", "learned"],
    "layer_scale": [0.5],
    "attention_heads": [1, 2],
    "depth": [3, 2],
    "stem": [(3, 1)],
    "columns": [(8, -8, 16)],
}
# Options with one possible value: distillation goes with the class token.
FIXED = {("deit_micro_tiny", "pooling")}
QUICK = ("mobilenet_tiny", "vgg_bn_tiny", "vit_micro_tiny", "encoder_tiny", "highway_tiny")


def other_values(option, default):
    """Values of an option unlike its default, of which at least one should be possible."""
    return [value for value in VALUES.get(option) or values_like(default) if value != default]


def values_like(default):
    """Values of the type of a default."""
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [2 * default, default + 1, max(1, default // 2)]
    if isinstance(default, float):
        return [2 * default + 0.125, default / 2, 0.5]
    if isinstance(default, tuple):
        return [tuple(2 * v for v in default), (*default[:-1], default[-1] + 1), default[:-1], default[:1]]
    return []


def with_other_value(name, option):
    """A model with another value of an option, randomized, and the value."""
    default = effective_options(models[name], {})[option]
    for value in other_values(option, default):
        try:
            return randomize(zoo.get(name, **{option: value})), value
        except (ZooError, ValueError):
            continue
    raise AssertionError(f"{name} accepts no other value of {option}={default!r}: add one to VALUES")


CASES = [(name, option) for name in TINY for option in options_of(models[name]) if (name, option) not in FIXED]
# The first model that has an option, for each option of some families.
FIRST = {option: name for name in reversed(QUICK) for option in options_of(models[name])}
# Of each of these families, an option for each type of its default, such as a flag, a number or a name.
OF_A_TYPE = {
    (name, type(default)): (name, option)
    for name in QUICK
    for option, default in reversed(effective_options(models[name], {}).items())
    if FIRST.get(option) == name
}
QUICK_CASES = [case for case in CASES if case in OF_A_TYPE.values()]
# Kinds of files for a quick case: one, another for each option. The other kinds are slow cases.
ONE_KIND = {case: (FILES[i % len(FILES)],) for i, case in enumerate(QUICK_CASES)}


def outputs(model):
    """The outputs of a model for fixed inputs, as a list."""
    import keras

    return [np.asarray(value) for value in keras.tree.flatten(model(inputs_for(model)))]


def equal(one, other):
    """Whether two models give the same bits."""
    pairs = list(zip(outputs(one), outputs(other), strict=True))
    return all(a.shape == b.shape and np.array_equal(a, b) for a, b in pairs)


def without_info(path, folder):
    """A copy of a safetensors file that states nothing of its model but the name."""
    with safe_open(path, "np") as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        metadata = {key: value for key, value in file.metadata().items() if key != "zoo"}
    save_file(arrays, folder / "mute.safetensors", metadata=metadata)
    return folder / "mute.safetensors"


def mute_model(name, path):
    """The model of a file without an info; None if the file is refused."""
    try:
        return zoo.get(name, weights=path)
    except BadOption as error:
        one_line(error)
        return None


@pytest.mark.filterwarnings("ignore:.*are assumed")
@pytest.mark.parametrize(
    ("name", "option", "kinds"),
    [
        *(pytest.param(*case, kinds, id="-".join((*case, *kinds))) for case, kinds in ONE_KIND.items()),
        *(pytest.param(*case, FILES, id="-".join((*case, "all")), marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_options_travel(name, option, kinds, tmp_path):
    """A file restores the option; without its info (the control) the model is another one, or is refused."""
    model, value = with_other_value(name, option)
    if option == "auxiliary":
        return  # adds outputs, which a file of weights does not ask for
    for kind in kinds:
        again = zoo.get(name, weights=saved(model, kind, tmp_path))
        assert zoo.info(again).options[option] == value
        assert zoo.info(again) == zoo.info(model)
        assert equal(again, model)
    if option not in FREE and ".safetensors" in kinds:
        other = mute_model(name, without_info(tmp_path / f"{name}.safetensors", tmp_path))
        assert other is None or not equal(other, model)


# Options that change the function, that change nothing, and that change the weights.
QUICK_CONTRADICTIONS = {
    ("mobilenet_tiny", "epsilon"), ("mobilenet_tiny", "dropout"), ("highway_tiny", "gate_bias"),
    ("vgg_bn_tiny", "depths"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "option"), [slow_unless(case in QUICK_CONTRADICTIONS, *case) for case in CASES])
def test_contradicting_options_are_refused(name, option, tmp_path):
    """The default of an option is refused for weights made with another value, unless both compute the same."""
    model, value = with_other_value(name, option)
    default, path = effective_options(models[name], {})[option], saved(model, ".safetensors", tmp_path)
    assert equal(zoo.get(name, weights=path, **{option: value}), model) or option == "auxiliary"
    if option in FREE:
        assert zoo.info(zoo.get(name, weights=path, **{option: default})).options[option] == default
    elif option != "auxiliary":
        with pytest.raises(BadOption) as error:
            zoo.get(name, weights=path, **{option: default})
        assert option in one_line(error.value)
        assert "made with" in str(error.value)


@pytest.mark.parametrize("epsilon", [1.001e-5, 1e-3])
def test_nearly_the_same_epsilon_is_refused(epsilon, tmp_path):
    """No tolerance decides: outputs would not be equal to the bit."""
    path = saved(zoo.get("resnet_tiny", epsilon=epsilon), ".safetensors", tmp_path)
    with pytest.raises(BadOption, match=f"Received: epsilon=1e-05 .* made with epsilon={epsilon:g}"):
        zoo.get("resnet_tiny", weights=path, epsilon=1e-5)


APPLICATIONS = ("MobileNetV2", "InceptionV3", "EfficientNetB0", "ConvNeXtTiny", "ResNet50", "VGG16")


@pytest.mark.parametrize(
    ("application", "kinds"),
    [
        pytest.param("MobileNetV2", (".keras",), id="MobileNetV2", marks=pytest.mark.slow),
        *(pytest.param(name, FILES, id=f"{name}-all", marks=pytest.mark.slow) for name in APPLICATIONS),
    ],
)
def test_weights_of_keras_applications_travel(application, kinds, tmp_path):
    """Padding, epsilon, input scaling, channel order and preprocessing survive each kind of file, to the bit."""
    theirs = keras_application(application)
    name, shape = KERAS[application], theirs.input_shape[1:]
    model, values = zoo.get(name, input_shape=shape, weights=theirs), inputs_for(theirs) * 50
    expected = np.asarray(theirs(values[..., ::-1] if application in CAFFE else values))
    assert relative_error(model, values, expected) < 1e-4
    for kind in kinds:
        path = saved(model, kind, tmp_path)
        again = zoo.get(name, input_shape=shape, weights=path)
        assert np.array_equal(again(values), model(values))
        assert zoo.info(again) == zoo.info(model)
        path.unlink()


def test_lost_padding_is_seen(tmp_path):
    """Control: the same arrays with the zoo's own padding and epsilon give other logits."""
    theirs = keras_application("MobileNetV2")
    shape = theirs.input_shape[1:]
    model = zoo.get("mobilenet_v2", input_shape=shape, weights=theirs)
    mute, values = without_info(saved(model, ".safetensors", tmp_path), tmp_path), inputs_for(theirs)
    with pytest.raises(BadOption, match="must state their options") as error:
        zoo.get("mobilenet_v2", input_shape=shape, weights=mute)
    assert "epsilon=1e-05, tf_padding=False or with epsilon=0.001, tf_padding=True" in one_line(error.value)
    right = zoo.get("mobilenet_v2", input_shape=shape, weights=mute, epsilon=1e-3, tf_padding=True)
    wrong = zoo.get("mobilenet_v2", input_shape=shape, weights=mute, epsilon=1e-5, tf_padding=False)
    expected = np.asarray(model(values))
    assert np.array_equal(right(values), expected)
    assert relative_error(wrong, values, expected) > 1e-3
    assert zoo.preprocessing(right) is None


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="ours", marks=pytest.mark.slow),
        pytest.param({"epsilon": 1e-3, "tf_padding": True}, id="keras"),
    ],
)
@pytest.mark.parametrize("kind", [".keras", pytest.param("model", marks=pytest.mark.slow)])
def test_graph_without_info_is_recognized(kind, options, tmp_path):
    """A `.keras` file without an info, and its model, show which convention they follow."""
    import keras

    model = randomize(zoo.get("mobilenet_v2", input_shape=(33, 32, 3), classes=5, **options))
    plain = keras.Model(model.input, model.output, name=model.name)
    again = zoo.get("mobilenet_v2", input_shape=(33, 32, 3), classes=5, weights=saved(plain, kind, tmp_path))
    assert equal(again, model)
    assert zoo.info(again).options["tf_padding"] == bool(options)
    assert zoo.preprocessing(again) is None


def test_graph_of_no_convention_is_refused():
    """A model without an info whose layers compute something else is refused, unless its options are passed."""
    import keras

    model = randomize(zoo.get("mobilenet_tiny", input_shape=(32, 32, 3), classes=5, epsilon=0.25))
    plain = keras.Model(model.input, model.output, name=model.name)
    with pytest.raises(BadOption, match=r"stem_norm has epsilon=0\.25, not 1e-05") as error:
        zoo.get("mobilenet_tiny", input_shape=(32, 32, 3), classes=5, weights=plain)
    one_line(error.value)
    again = zoo.get("mobilenet_tiny", input_shape=(32, 32, 3), classes=5, weights=plain, epsilon=0.25)
    assert equal(again, model)


def test_assumed_options_are_noted(tmp_path):
    """A file without an info that fits one convention loads with one line that says so."""
    model = randomize(zoo.get("resnet_tiny"))
    mute = without_info(saved(model, ".safetensors", tmp_path), tmp_path)
    with pytest.warns(UserWarning, match=r"state no options: those of resnet_tiny are assumed") as noted:
        again = zoo.get("resnet_tiny", weights=mute)
    assert len([warning for warning in noted if "assumed" in str(warning.message)]) == 1
    assert equal(again, model)
    assert zoo.preprocessing(again) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        zoo.get("resnet_tiny", weights=saved(model, ".safetensors", tmp_path))  # the control


def test_option_of_another_version_is_refused(tmp_path):
    """An option that this version does not know cannot be ignored."""
    from zoo.layers import saving

    model = zoo.get("resnet_tiny")
    info = zoo.info(model)
    stranger = saving.with_info(model, zoo.ModelInfo(info.name, {**info.options, "groups": 4}))
    path = saved(stranger, ".safetensors", tmp_path)
    with pytest.raises(BadOption, match="groups=4, an option that this version does not have") as error:
        zoo.get("resnet_tiny", weights=path)
    one_line(error.value)
