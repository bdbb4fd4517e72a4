"""Pruned networks have exactly the zeros that were asked for, whatever trains them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import zoo
from export.compression.masks import Masks, Pruning, choose, hold, kernels, prune, zeros
from training.data.pipeline.opening import open_pipeline
from training.finetune import finetune, shorten
from training.recipe.recipe import resolve
from zoo.common.errors import BadOption, ExportError
from zoo.common.lazy import keras

STEPS = 23  # of 64 examples each


@pytest.fixture
def network():
    """A ResNet for the digits with random weights."""
    keras.utils.set_random_seed(1)
    return zoo.get("resnet_tiny", input_shape=(8, 8, 1))


def shares(network, pruning):
    """Share of zeros by kernel."""
    return {path: count / size for path, (count, size) in zeros(network, pruning).items()}


def test_target_is_exact(network, trained):
    """Every kernel ends with floor(sparsity * size + 1/2) zeros, the optimizer being the fused one."""
    pruning = Pruning(0.8)
    assert prune(network, pruning, trained, epochs=3, steps_per_epoch=STEPS) is network
    for count, size in zeros(network, pruning).values():
        assert count == int(0.8 * size + 0.5)
    assert all(variable.constraint is None for variable in network.variables)


@pytest.mark.slow
def test_without_masks_nothing_is_zero(network, trained):
    """The control: the same training leaves no zeros, and zeros that are not held are lost."""
    trained(network, 1)
    assert sum(count for count, _ in zeros(network, Pruning()).values()) == 0
    pruning = Pruning(0.5)
    masks = Masks(network, pruning, STEPS)
    masks.update(STEPS)
    assert min(shares(network, pruning).values()) > 0.49
    trained(network, 1)
    assert sum(count for count, _ in zeros(network, pruning).values()) == 0


def test_zeros_are_held(trained):
    """Training with `hold` keeps what is zero and moves the rest."""
    network = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    pruning = Pruning(0.75)
    Masks(network, pruning, 1).update(1)
    before = {v.path: np.asarray(v) for v in kernels(network, pruning)}
    with hold(network):
        trained(network, 1)
    for variable in kernels(network, pruning):
        after, old = np.asarray(variable), before[variable.path]
        np.testing.assert_array_equal(after == 0, old == 0)
        assert (after != old).any()


@pytest.mark.slow
def test_global_scope(network, trained):
    """All kernels together have the share; single ones may differ."""
    pruning = Pruning(0.7, scope="global")
    prune(network, pruning, trained, epochs=2, steps_per_epoch=STEPS)
    counts, sizes = zip(*zeros(network, pruning).values(), strict=True)
    assert sum(counts) == int(0.7 * sum(sizes) + 0.5)
    assert len({round(share, 2) for share in shares(network, pruning).values()}) > 3


def test_two_of_four(network, trained):
    """Of each four neighbouring input channels two are zero; the stem has one channel, so that it must be skipped."""
    with pytest.raises(BadOption, match=r"2:4 needs a multiple of 4 .* stem/kernel with 1.*skip=stem"):
        prune(network, Pruning(keep=(2, 4)), trained, epochs=1, steps_per_epoch=STEPS)
    pruning = Pruning(keep=(2, 4), skip=("stem",))
    prune(network, pruning, trained, epochs=1, steps_per_epoch=STEPS)
    for variable in kernels(network, pruning):
        groups = np.moveaxis(np.asarray(variable), -2, -1).reshape(-1, 4)
        assert ((groups == 0).sum(1) == 2).all()
    assert np.asarray(network.get_layer("stem").kernel).all()


def test_blocks(trained):
    """Dense kernels lose whole blocks; convolutions are refused before any training."""
    network = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    pruning = Pruning(0.5, block=(1, 4), skip=("logits",))
    prune(network, pruning, trained, epochs=1, steps_per_epoch=STEPS)
    (variable,) = kernels(network, pruning)
    blocks = np.asarray(variable).reshape(variable.shape[0], -1, 4)
    whole = (blocks == 0).all(-1)
    assert whole.sum() == whole.size // 2
    np.testing.assert_array_equal(whole, (blocks == 0).any(-1))
    with pytest.raises(BadOption, match="must divide"):
        kernels(network, Pruning(0.5, block=(1, 4)))

    def never(*_):
        raise AssertionError

    with pytest.raises(BadOption, match="dense kernels only"):
        prune(zoo.get("cnn_tiny", input_shape=(16, 16, 1)), Pruning(block=(1, 4)), never, epochs=1, steps_per_epoch=1)


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 1.0},
        {"sparsity": -0.1},
        {"scope": "all"},
        {"keep": (4, 4)},
        {"block": (0, 4)},
        {"ramp": 0.0},
        {"updates": 0},
        {"keep": (2, 4), "block": (1, 4)},
        {"block": (1, 4), "scope": "global"},
    ],
)
def test_options_are_checked(options):
    """What makes no sense is refused."""
    with pytest.raises(BadOption, match="Received"):
        Pruning(**options)


def test_what_is_pruned():
    """Depthwise kernels, embeddings and normalization stay dense; kernels inside attention are pruned; skip skips."""
    depthwise = {v.path for v in kernels(zoo.get("mobilenet_tiny", input_shape=(16, 16, 1)), Pruning())}
    assert depthwise
    assert not any("depthwise" in path for path in depthwise)
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(11, 8, name="embedding")(inputs)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    attention = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    paths = {v.path for v in kernels(attention, Pruning(skip=("logits",)))}
    assert {path.split("/")[-2] for path in paths} == {"query", "key", "value", "attention_output"}
    with pytest.raises(BadOption, match="skip must name"):
        kernels(attention, Pruning(skip=("logit",)))
    with pytest.raises(BadOption, match="no kernel to prune"):
        kernels(attention, Pruning(skip=("*",)))


@pytest.mark.slow
def test_transformers_are_pruned(trained):
    """The kernels of attention in a ViT end with exactly the share that was asked for, as all others do."""
    network = zoo.get("vit_micro_tiny", input_shape=(8, 8, 1))
    prune(network, Pruning(0.8), trained, epochs=1, steps_per_epoch=STEPS)
    found = zeros(network, Pruning())
    assert sum("attention" in path for path in found) > 4
    assert all(count == int(0.8 * size + 0.5) for count, size in found.values())


def test_masks_follow_from_zeros(network, trained):
    """Stopped in the ramp and gone on with in a new object, the masks are the same."""
    pruning = Pruning(0.8)
    first = Masks(network, pruning, 100)
    with first.attached():
        for step in range(31):
            first.update(step)
    second = Masks(network, pruning, 100)
    second.update(30)
    for a, b in zip(first.masks, second.masks, strict=True):
        np.testing.assert_array_equal(a, b)
    assert 0 < shares(network, pruning)["stage1_block1_conv1/kernel"] < 0.8
    with pytest.raises(ExportError, match="at least 60 steps"):
        second.check_finished()
    second.update(60)
    second.check_finished()


def test_schedule_rises_to_the_target(network):
    """The share rises as 1 - (1 - t / T)³ and reaches the target at the end of the ramp exactly."""
    masks = Masks(network, Pruning(0.8), 100)
    found = [masks._share(step) for step in (0, 15, 30, 45, 60, 61)]
    np.testing.assert_allclose(found, [0.8 * (1 - (1 - t) ** 3) for t in (0, 0.25, 0.5, 0.75, 1, 1)], rtol=1e-6)


def test_choose_takes_the_smallest():
    """The largest magnitudes stay, also where they are negative."""
    kernel = np.array([[-4.0, 1.0, 0.5, -2.0]])
    np.testing.assert_array_equal(choose([kernel], Pruning(0.5), 0.5)[0], [[1, 0, 0, 1]])
    np.testing.assert_array_equal(choose([kernel.T], Pruning(keep=(2, 4)), 0.5)[0], [[1], [0], [0], [1]])


@pytest.mark.slow
def test_moving_averages_stay_exact(network, trained):
    """Averages of weights over time know weights that were not zero yet; the masks have the last word."""
    pruning = Pruning(0.8)
    prune(
        network,
        pruning,
        lambda *given: trained(*given, use_ema=True, ema_momentum=0.9),
        epochs=2,
        steps_per_epoch=STEPS,
    )
    assert all(count == int(0.8 * size + 0.5) for count, size in zeros(network, pruning).values())


@pytest.mark.slow
def test_mixed_precision(trained):
    """Masks hold under mixed_bfloat16."""
    network = zoo.get("resnet_tiny", input_shape=(8, 8, 1), dtype="mixed_bfloat16")
    prune(network, Pruning(0.8), trained, epochs=1, steps_per_epoch=STEPS)
    assert all(count == int(0.8 * size + 0.5) for count, size in zeros(network, Pruning()).values())


class Killed(Exception):
    """Stands for the end of a process in the middle of training."""


def test_killed_in_the_ramp_it_ends_the_same(tmp_path):
    """Pruning that was cut off in an epoch goes on from the state before it, to the same zeros and weights."""
    recipe = resolve("digits_resnet", {"model.name": "mlp_tiny", "data.augment.rotate": 0}.items())
    recipe, pipeline = shorten(recipe, 4, 0.5), open_pipeline(recipe, zoo.spec("mlp_tiny"))
    steps = pipeline.steps_per_epoch

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) == steps + steps // 2:
                raise Killed

    def pruned(name, *others):
        keras.utils.set_random_seed(1)
        network = zoo.get("mlp_tiny", input_shape=pipeline.shape)

        def train(network, epochs, callbacks):
            given = [*callbacks, *others]
            finetune(network, recipe, pipeline, state=tmp_path / name, callbacks=given)

        prune(network, Pruning(0.8), train, epochs=4, steps_per_epoch=steps)
        return network

    whole = pruned("whole.safetensors")
    with pytest.raises(Killed):
        pruned("cut.safetensors", Kill())
    again = pruned("cut.safetensors")
    assert all(count == int(0.8 * size + 0.5) for count, size in zeros(again, Pruning()).values())
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one == 0, other == 0)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


JAX = """
import zoo
from export.compression.masks import Pruning, kernels
from zoo.common.errors import UnsupportedExport
try:
    kernels(zoo.get("mlp_tiny"), Pruning())
except UnsupportedExport as error:
    print(error)
"""
MIRRORED = """
import json, sys
import numpy as np, tensorflow as tf
two = int(sys.argv[1])
if two:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
else:
    strategy = tf.distribute.get_strategy()
import keras, zoo
from export.compression.masks import Pruning, prune, zeros
from training.optim.sgd import fused_sgd
x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
y = np.arange(64) % 10
keras.utils.set_random_seed(1)
with strategy.scope():
    network = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
def train(network, epochs, callbacks):
    with strategy.scope():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(fused_sgd()(0.05, momentum=0.9), loss, jit_compile=False)
    network.fit(x, y, batch_size=32, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=0)
prune(network, Pruning(0.8), train, epochs=10, steps_per_epoch=2)
print(json.dumps([zeros(network, Pruning()), [np.asarray(v).tolist() for v in network.weights]]))
"""


@pytest.mark.slow
def test_same_under_mirrored_strategy(python):
    """Two replicas end with the zeros and, but for rounding, the weights of one."""
    processes = [python("-c", MIRRORED, replicas) for replicas in (0, 1)]
    found = [json.loads(p.communicate(timeout=240)[0].splitlines()[-1]) for p in processes]
    assert found[0][0] == found[1][0]
    assert all(count == int(0.8 * size + 0.5) for count, size in found[0][0].values())
    for one, two in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(one) == 0, np.asarray(two) == 0)


@pytest.mark.slow
def test_refused_on_jax(python):
    """On JAX the masks would be constants of the compiled step."""
    out, err = python("-c", JAX, env={"KERAS_BACKEND": "jax"}).communicate(timeout=240)
    assert "backend='jax'" in out, err
