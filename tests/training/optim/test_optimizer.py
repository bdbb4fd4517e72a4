"""Optimizers: Keras' by name, exclusion from decay, layer-wise rates, Muon, gradient accumulation."""

from __future__ import annotations

import functools
import inspect
import math

import numpy as np
import pytest

from training import OptimizerConfig, Recipe, ScheduleConfig
from training.optim.layer_decay import rate_multipliers
from training.optim.optimizer import connect_optimizer, make_optimizer
from zoo.common.errors import BadOption

WRAPPERS = ("lossscaleoptimizer", "multioptimizer")


def optimizer_names():
    """Return the names of Keras' optimizers, in lower case, without those that only wrap others."""
    import keras

    found = inspect.getmembers(keras.optimizers, inspect.isclass)
    names = {n.lower() for n, c in found if issubclass(c, keras.optimizers.Optimizer)}
    # Keras 3.12, the last for Python 3.10, has a Muon that asks TensorFlow's variables for a path they lack.
    broken = {"muon"} if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13) else set()
    return sorted(names - {"optimizer", *WRAPPERS} - broken)


def made(epochs=4, steps=5, schedule=None, **optimizer):
    """Return the optimizer of a recipe."""
    config = ScheduleConfig("constant") if schedule is None else schedule
    return make_optimizer(Recipe("test", optimizer=OptimizerConfig(**optimizer), schedule=config, epochs=epochs), steps)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_of_keras_is_made(name, weight_decay):
    """Each optimizer is made by its name, with decay and without, and moves a weight."""
    import keras

    variable = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
    optimizer = made(name=name, learning_rate=0.01, weight_decay=weight_decay, clip_norm=1.0)
    assert type(optimizer).__name__.lower() == name
    optimizer.build([variable])
    optimizer.apply([keras.ops.ones((2, 2))])
    assert not np.array_equal(variable, np.ones((2, 2)))


@pytest.mark.parametrize("name", ["SGD", "sgd", "Sgd"])
def test_case_of_the_name_does_not_matter(name):
    """Names are case-insensitive, and momentum goes to those that have it."""
    optimizer = made(name=name, momentum=0.8, nesterov=False)
    assert (optimizer.momentum, optimizer.nesterov) == (0.8, False)


@pytest.mark.parametrize(
    ("name", "nearest"), [("sgdd", "sgd"), ("adamv", "adam"), ("rms_prop", "rmsprop"), *((n, "") for n in WRAPPERS)]
)
def test_unknown_optimizer_names_the_nearest(name, nearest):
    """An unknown name is refused with the nearest one; helper classes are no optimizers."""
    with pytest.raises(BadOption, match=f"optimizer.name='{name}'") as error:
        made(name=name)
    assert "\n" not in str(error.value)
    assert not nearest or f"Did you mean '{nearest}" in str(error.value)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_leaves_biases_and_normalization_alone(name):
    """With gradients of zero, only kernels shrink, by the learning rate times the decay."""
    import keras

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(2))
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones(variable.shape))
    optimizer = made(name=name, learning_rate=0.1, weight_decay=0.5)
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    assert {v.name for v in model.trainable_variables} == {"kernel", "bias", "gamma", "beta"}
    for variable in model.trainable_variables:
        wanted = 1 - 0.1 * 0.5 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(variable, np.full(variable.shape, wanted), rtol=1e-6)


def test_decay_leaves_embeddings_and_tokens_alone():
    """Only the kernels of a transformer shrink: not its tables, token, scales and norms."""
    import keras

    import zoo

    for name, options in (("encoder_tiny", {"pooling": "class", "layer_scale": 1.0}), ("transformer_tiny", {})):
        variables = zoo.get(name, **options).trainable_variables
        for variable in variables:
            variable.assign(keras.ops.ones(variable.shape))
        optimizer = made(name="adamw", learning_rate=0.1, weight_decay=0.5)
        optimizer.build(variables)
        optimizer.apply([keras.ops.zeros(v.shape) for v in variables])
        shrunk = {v.name for v in variables if float(np.asarray(v).max()) < 0.99}
        assert shrunk == {"kernel"}
        assert {v.name for v in variables} - shrunk >= {"embedding", "gamma", "beta", "bias"}


def test_moments_are_left_to_keras_unless_given():
    """beta_2 and epsilon reach the optimizer if they are given."""
    import keras

    plain, given = made(name="adam"), made(name="adam", beta_2=0.98, epsilon=1e-9)
    assert (plain.beta_2, plain.epsilon) == (keras.optimizers.Adam().beta_2, keras.optimizers.Adam().epsilon)
    assert (given.beta_2, given.epsilon) == (0.98, 1e-9)
    assert made(name="adam", beta_1=0.8).beta_1 == 0.8
    assert made(name="rmsprop", rho=0.95).rho == 0.95
    assert made(name="muon", beta_2=0.95).adam_beta_2 == 0.95


@pytest.mark.parametrize("option", [{"beta_1": 0.8}, {"beta_2": 0.9}, {"epsilon": 1e-6}, {"rho": 0.9}])
def test_moments_of_an_optimizer_without_are_refused(option):
    """SGD has no squares to average."""
    with pytest.raises(BadOption, match=rf"sgd has no {next(iter(option))}") as error:
        made(name="sgd", **option)
    assert "\n" not in str(error.value)


def test_no_decay_by_default():
    """A decay of 0 is none."""
    assert not made(weight_decay=0.0).weight_decay


def test_clip_norm_limits_all_gradients_together():
    """The norm over all gradients is clipped to the limit; 0 does not clip."""
    import keras

    def moved(clip_norm):
        variables = [keras.Variable(np.zeros(4, "float32")), keras.Variable(np.zeros(9, "float32"))]
        optimizer = made(name="sgd", learning_rate=1.0, momentum=0.0, nesterov=False, clip_norm=clip_norm)
        optimizer.build(variables)
        optimizer.apply([keras.ops.full((4,), 3.0), keras.ops.full((9,), 4.0)])
        return math.sqrt(sum(float((np.asarray(v) ** 2).sum()) for v in variables))

    norm = math.sqrt(4 * 9 + 9 * 16)
    assert moved(0.0) == pytest.approx(norm)
    assert moved(0.5) == pytest.approx(0.5)
    assert moved(2 * norm) == pytest.approx(norm)


def _apply(optimizer, weight, gradient):
    optimizer.apply([gradient], [weight])


@pytest.mark.parametrize("nesterov", [False, True])
def test_fused_sgd_equals_keras(nesterov):
    """Momentum, decay, clipping and a schedule give the same weights, and the step uses the fused operation."""
    import keras
    import tensorflow as tf

    from training.optim.sgd import fused_sgd

    random_ = np.random.default_rng(0)
    start, gradients = random_.normal(size=(5, 3)), random_.normal(size=(6, 5, 3))
    ends = []
    ours = fused_sgd()
    for cls in (ours, keras.optimizers.SGD):
        schedule = keras.optimizers.schedules.CosineDecay(0.1, 6)
        optimizer = cls(schedule, momentum=0.9, nesterov=nesterov, weight_decay=1e-2, global_clipnorm=1.0)
        weight = keras.Variable(start.astype("float32"), name="kernel")
        optimizer.build([weight])
        step = tf.function(functools.partial(_apply, optimizer, weight))
        for gradient in gradients:
            step(tf.constant(gradient, tf.float32))
        operations = {
            op.type for op in step.get_concrete_function(tf.constant(gradients[0], tf.float32)).graph.get_operations()
        }
        assert ("ResourceApplyKerasMomentum" in operations) is (cls is ours)
        ends.append(weight.numpy())
    np.testing.assert_allclose(*ends, rtol=1e-6, atol=1e-7)
    assert np.abs(ends[0] - start).max() > 0.1


@pytest.mark.parametrize(("name", "nesterov"), [("momentum", False), ("nesterov", True)])
def test_textbook_names(name, nesterov):
    """Momentum is SGD with momentum, Nesterov's too; neither goes without."""
    optimizer = made(name=name, momentum=0.8)
    assert (type(optimizer).__name__, optimizer.momentum, optimizer.nesterov) == ("SGD", 0.8, nesterov)
    with pytest.raises(BadOption, match=f"{name} needs momentum"):
        made(name=name, momentum=0.0)


def test_gradients_are_clipped_in_three_ways():
    """By value, each by its norm, all by the global norm; and at most one of them."""
    import keras

    def moved(**clip):
        variables = [keras.Variable(np.zeros(4, "float32")), keras.Variable(np.zeros(9, "float32"))]
        optimizer = made(name="sgd", learning_rate=1.0, momentum=0.0, nesterov=False, **clip)
        optimizer.build(variables)
        optimizer.apply([keras.ops.full((4,), 3.0), keras.ops.full((9,), -0.1)])
        return [-np.asarray(v) for v in variables]

    np.testing.assert_allclose(moved(clip_value=0.5)[0], np.full(4, 0.5))
    np.testing.assert_allclose(moved(clip_value=0.5)[1], np.full(9, -0.1))
    assert np.linalg.norm(moved(clip_each=2.0)[0]) == pytest.approx(2.0)
    np.testing.assert_allclose(moved(clip_each=2.0)[1], np.full(9, -0.1))
    assert np.linalg.norm(np.concatenate(moved(clip_norm=2.0))) == pytest.approx(2.0)
    with pytest.raises(BadOption, match="at most one kind of gradient clipping") as error:
        moved(clip_value=0.5, clip_norm=1.0)
    assert "\n" not in str(error.value)


def small_model():
    """Return dense layers in three steps, the second one normalized."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, name="dense1"), keras.layers.Dense(4, name="dense2")]
    layers += [keras.layers.LayerNormalization(name="dense2_norm"), keras.layers.Dense(2, name="logits")]
    inputs = x = keras.Input((3,))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def test_rate_multipliers_follow_the_depth():
    """A norm belongs to its layer; the last step has the full rate."""
    found = dict(
        zip((v.path for v in small_model().trainable_variables), rate_multipliers(small_model(), 0.5), strict=True)
    )
    assert {path.partition("/")[0]: multiplier for path, multiplier in found.items()} == {
        "dense1": 0.25,
        "dense2": 0.5,
        "dense2_norm": 0.5,
        "logits": 1.0,
    }


def test_blocks_are_one_step():
    """The patches, each block and the classifier of a ViT are steps; tokens and positions belong to the patches."""
    import zoo

    model = zoo.get("vit_micro_tiny")
    found = {v.path: s for v, s in zip(model.trainable_variables, rate_multipliers(model, 0.5), strict=True)}
    by_layer = {path.partition("/")[0]: multiplier for path, multiplier in found.items()}
    assert {by_layer[n] for n in ("patches", "token", "positions")} == {0.5**4}
    assert {s for n, s in by_layer.items() if n.startswith("block2")} == {0.5**2}
    assert (by_layer["norm"], by_layer["logits"]) == (0.5, 1.0)


OTHERS = ("adam", "lion", "rmsprop", "adagrad", "nadam", "adamax")


@pytest.mark.parametrize("name", ["sgd", "adamw", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_rate_by_depth_equals_a_lower_rate(name):
    """A variable at half the rate moves as with an optimizer at half the rate, including decay."""
    import keras

    def ends(rate, decay):
        model = small_model()
        options = {"name": name, "learning_rate": rate, "weight_decay": 0.01, "layer_decay": decay}
        config = OptimizerConfig(**options)
        optimizer = made(**options)
        connect_optimizer(optimizer, model, config)
        optimizer.build(model.trainable_variables)
        random = np.random.default_rng(0)
        for _ in range(4):
            optimizer.apply(
                [keras.ops.convert_to_tensor(random.normal(size=v.shape), "float32") for v in model.trainable_variables]
            )
        return {v.path: np.asarray(v) for v in model.trainable_variables}

    by_depth, whole, half = ends(0.02, 0.5), ends(0.02, 0.0), ends(0.01, 0.0)
    np.testing.assert_allclose(by_depth["logits/kernel"], whole["logits/kernel"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_depth["dense2/kernel"], half["dense2/kernel"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_depth["dense2_norm/gamma"], half["dense2_norm/gamma"], rtol=1e-5, atol=1e-6)
    # The control: halving the rate matters.
    assert np.abs(whole["dense2/kernel"] - half["dense2/kernel"]).max() > 1e-4


@pytest.mark.parametrize("name", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
def test_accumulated_steps_are_one_of_the_whole_batch(name):
    """Three steps of 8 examples move the weights like one of 24, on schedule, with fused operations."""
    import keras

    random = np.random.default_rng(0)
    x, y = random.normal(size=(72, 3)).astype("float32"), random.normal(size=(72, 2)).astype("float32")

    def ends(batch, accumulate):
        model = small_model()
        steps = len(x) // batch
        recipe = Recipe(
            "test",
            optimizer=OptimizerConfig(name, learning_rate=0.05, weight_decay=0.1, clip_norm=0.5, accumulate=accumulate),
            schedule=ScheduleConfig("cosine", warmup_epochs=1),
            epochs=2,
        )
        model.compile(make_optimizer(recipe, steps), keras.losses.MeanSquaredError(), jit_compile=False)
        model.fit(x, y, batch_size=batch, epochs=2, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations) == 2 * 72 // 24
        return model.get_weights()

    whole = ends(24, 1)
    for one, other in zip(whole, ends(8, 3), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(whole, small_model().get_weights(), strict=True))


def test_more_steps_than_there_are_cannot_be_accumulated():
    """Accumulation over more steps than training has is refused: the weights would never change."""
    with pytest.raises(BadOption, match="at most the 20 steps"):
        made(epochs=4, steps=5, accumulate=21)


def test_muon_orthogonalizes_kernels_of_convolutions_too():
    """The first step of a kernel is a scaled matrix of almost equal singular values; biases and logits go by Adam."""
    import keras

    layers = [keras.layers.Conv2D(6, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(5, name="logits")]
    inputs = x = keras.Input((4, 4, 2))
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, x)
    before = [np.asarray(v).copy() for v in model.trainable_variables]
    optimizer = made(name="muon", learning_rate=0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    random = np.random.default_rng(0)
    optimizer.apply(
        [keras.ops.convert_to_tensor(random.normal(size=v.shape), "float32") for v in model.trainable_variables]
    )
    moved = {v.path: np.asarray(v) - old for v, old in zip(model.trainable_variables, before, strict=True)}
    values = np.linalg.svd(moved["conv/kernel"].reshape(18, 6), compute_uv=False)
    assert values.min() > 0.5 * values.max()
    # The mean square of its updates is that of Adam's, 0.2 of the rate (arXiv:2502.16982).
    assert np.sqrt((moved["conv/kernel"] ** 2).mean()) == pytest.approx(0.2 * 0.1, rel=0.3)
    # Adam's first step is the rate itself, whatever the gradient.
    for path in ("conv/bias", "logits/kernel", "logits/bias"):
        np.testing.assert_allclose(np.abs(moved[path]), 0.1, rtol=1e-3)
    # The control: Keras' own Muon leaves the convolution to Adam.
    keras_own = keras.optimizers.Muon(0.1)
    assert keras_own._should_use_adamw(model.trainable_variables[0])
    assert not optimizer._should_use_adamw(model.trainable_variables[0])
