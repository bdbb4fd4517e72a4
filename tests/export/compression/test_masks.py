"""Pruned models have exactly the requested zeros, whatever trains them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import zoo
from export.compression.masks import Masks, freeze_zeros, prune, zero_counts
from export.compression.pruning import Pruning, magnitude_masks, prunable_kernels
from training.data.pipeline.opening import open_pipeline
from training.fit.finetune import finetune, shorten
from training.recipe.recipe import resolve
from zoo.common.errors import BadOption, ExportError
from zoo.common.lazy import keras

STEPS = 23  # of 64 examples each


@pytest.fixture
def model():
    """A ResNet for the digits with random weights."""
    keras.utils.set_random_seed(1)
    return zoo.get("resnet_tiny", input_shape=(8, 8, 1))


def sparsities(model, pruning):
    """The sparsity of each kernel."""
    return {path: count / size for path, (count, size) in zero_counts(model, pruning).items()}


def test_target_is_exact(model, trained):
    """Every kernel ends with floor(sparsity * size + 1/2) zeros, with the fused optimizer."""
    pruning = Pruning(0.8)
    assert prune(model, pruning, trained, epochs=1, steps_per_epoch=STEPS) is model
    for count, size in zero_counts(model, pruning).values():
        assert count == int(0.8 * size + 0.5)
    assert all(variable.constraint is None for variable in model.variables)


@pytest.mark.slow
def test_without_masks_nothing_is_zero(model, trained):
    """The control: the same training leaves no zeros, and zeros without a mask are lost."""
    trained(model, 1)
    assert sum(count for count, _ in zero_counts(model, Pruning()).values()) == 0
    pruning = Pruning(0.5)
    masks = Masks(model, pruning, STEPS)
    masks.update(STEPS)
    assert min(sparsities(model, pruning).values()) > 0.49
    trained(model, 1)
    assert sum(count for count, _ in zero_counts(model, pruning).values()) == 0


def test_zeros_are_frozen(trained):
    """Training with `freeze_zeros` preserves the zeros and moves the other weights."""
    model = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    pruning = Pruning(0.75)
    Masks(model, pruning, 1).update(1)
    before = {v.path: np.asarray(v) for v in prunable_kernels(model, pruning)}
    with freeze_zeros(model):
        trained(model, 1)
    for variable in prunable_kernels(model, pruning):
        after, old = np.asarray(variable), before[variable.path]
        np.testing.assert_array_equal(after == 0, old == 0)
        assert (after != old).any()


@pytest.mark.slow
def test_global_scope(model, trained):
    """All kernels together have the sparsity; single ones differ."""
    pruning = Pruning(0.7, scope="global")
    prune(model, pruning, trained, epochs=2, steps_per_epoch=STEPS)
    counts, sizes = zip(*zero_counts(model, pruning).values(), strict=True)
    assert sum(counts) == int(0.7 * sum(sizes) + 0.5)
    assert len({round(sparsity, 2) for sparsity in sparsities(model, pruning).values()}) > 3


def test_two_of_four(model, trained):
    """Two of each four consecutive input channels are zero; the stem has one channel and must be skipped."""
    with pytest.raises(BadOption, match=r"2:4 needs a multiple of 4 .* stem/kernel with 1.*skip=stem"):
        prune(model, Pruning(pattern=(2, 4)), trained, epochs=1, steps_per_epoch=STEPS)
    model, pruning = zoo.get("mlp_tiny", input_shape=(8, 8, 1)), Pruning(pattern=(2, 4), skip=("logits",))
    prune(model, pruning, trained, epochs=1, steps_per_epoch=STEPS)
    for variable in prunable_kernels(model, pruning):
        groups = np.moveaxis(np.asarray(variable), -2, -1).reshape(-1, 4)
        assert ((groups == 0).sum(1) == 2).all()
    assert np.asarray(model.get_layer("logits").kernel).all()


def test_blocks(trained):
    """Whole blocks of dense kernels are zero; convolutions are refused before any training."""
    model = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
    pruning = Pruning(0.5, block=(1, 4), skip=("logits",))
    prune(model, pruning, trained, epochs=1, steps_per_epoch=STEPS)
    (variable,) = prunable_kernels(model, pruning)
    blocks = np.asarray(variable).reshape(variable.shape[0], -1, 4)
    whole = (blocks == 0).all(-1)
    assert whole.sum() == whole.size // 2
    np.testing.assert_array_equal(whole, (blocks == 0).any(-1))
    with pytest.raises(BadOption, match="must divide"):
        prunable_kernels(model, Pruning(0.5, block=(1, 4)))

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
        {"pattern": (4, 4)},
        {"block": (0, 4)},
        {"ramp": 0.0},
        {"updates": 0},
        {"pattern": (2, 4), "block": (1, 4)},
        {"block": (1, 4), "scope": "global"},
    ],
)
def test_options_are_checked(options):
    """Invalid options are refused."""
    with pytest.raises(BadOption, match="Received"):
        Pruning(**options)


def test_prunable_kernels():
    """Depthwise kernels, embeddings, normalization and skipped layers stay dense; kernels of attention are pruned."""
    depthwise = {v.path for v in prunable_kernels(zoo.get("mobilenet_tiny", input_shape=(16, 16, 1)), Pruning())}
    assert depthwise
    assert not any("depthwise" in path for path in depthwise)
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(11, 8, name="embedding")(inputs)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    attention = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    paths = {v.path for v in prunable_kernels(attention, Pruning(skip=("logits",)))}
    assert {path.split("/")[-2] for path in paths} == {"query", "key", "value", "attention_output"}
    with pytest.raises(BadOption, match="skip must name"):
        prunable_kernels(attention, Pruning(skip=("logit",)))
    with pytest.raises(BadOption, match="no kernel to prune"):
        prunable_kernels(attention, Pruning(skip=("*",)))


@pytest.mark.slow
def test_transformers_are_pruned(trained):
    """The kernels of attention in a ViT end with exactly the requested sparsity."""
    model = zoo.get("vit_micro_tiny", input_shape=(8, 8, 1))
    prune(model, Pruning(0.8), trained, epochs=1, steps_per_epoch=STEPS)
    found = zero_counts(model, Pruning())
    assert sum("attention" in path for path in found) > 4
    assert all(count == int(0.8 * size + 0.5) for count, size in found.values())


def test_masks_resume_from_zeros(model, trained):
    """Masks that resume inside the ramp in a new object are the same."""
    pruning = Pruning(0.8)
    first = Masks(model, pruning, 100)
    with first.attached():
        for step in range(31):
            first.update(step)
    second = Masks(model, pruning, 100)
    second.update(30)
    for a, b in zip(first.masks, second.masks, strict=True):
        np.testing.assert_array_equal(a, b)
    assert 0 < sparsities(model, pruning)["stage1_block1_conv1/kernel"] < 0.8
    with pytest.raises(ExportError, match="at least 60 steps"):
        second.check_finished()
    second.update(60)
    second.check_finished()


def test_schedule_rises_to_the_target(model):
    """The sparsity rises as 1 - (1 - t / T)³ and reaches the target exactly at the end of the ramp."""
    masks = Masks(model, Pruning(0.8), 100)
    found = [masks.sparsity_at(step) for step in (0, 15, 30, 45, 60, 61)]
    np.testing.assert_allclose(found, [0.8 * (1 - (1 - t) ** 3) for t in (0, 0.25, 0.5, 0.75, 1, 1)], rtol=1e-6)


def test_magnitude_masks_prune_the_smallest():
    """The largest magnitudes stay, also negative ones."""
    kernel = np.array([[-4.0, 1.0, 0.5, -2.0]])
    np.testing.assert_array_equal(magnitude_masks([kernel], Pruning(0.5), 0.5)[0], [[1, 0, 0, 1]])
    np.testing.assert_array_equal(magnitude_masks([kernel.T], Pruning(pattern=(2, 4)), 0.5)[0], [[1], [0], [0], [1]])


@pytest.mark.slow
def test_moving_averages_stay_exact(model, trained):
    """A moving average includes weights from before they were zero; the masks apply after it."""
    pruning = Pruning(0.8)
    prune(
        model,
        pruning,
        lambda *arguments: trained(*arguments, use_ema=True, ema_momentum=0.9),
        epochs=2,
        steps_per_epoch=STEPS,
    )
    assert all(count == int(0.8 * size + 0.5) for count, size in zero_counts(model, pruning).values())


@pytest.mark.slow
def test_mixed_precision(trained):
    """Masks apply under mixed_bfloat16."""
    model = zoo.get("resnet_tiny", input_shape=(8, 8, 1), dtype="mixed_bfloat16")
    prune(model, Pruning(0.8), trained, epochs=1, steps_per_epoch=STEPS)
    assert all(count == int(0.8 * size + 0.5) for count, size in zero_counts(model, Pruning()).values())


class Killed(Exception):
    """Simulates the end of a process in the middle of training."""


@pytest.mark.slow
def test_pruning_resumes_after_a_kill(tmp_path):
    """Pruning that was killed in an epoch resumes from its checkpoint and gives the same zeros and weights."""
    recipe = resolve("digits_resnet", {"model.name": "mlp_tiny", "data.augment.rotate": 0}.items())
    recipe, pipeline = shorten(recipe, 4, 0.5), open_pipeline(recipe, zoo.spec("mlp_tiny"))
    steps = pipeline.steps_per_epoch

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) == steps + steps // 2:
                raise Killed

    def pruned(name, *others):
        keras.utils.set_random_seed(1)
        model = zoo.get("mlp_tiny", input_shape=pipeline.shape)

        def train(model, epochs, callbacks):
            finetune(model, recipe, pipeline, state=tmp_path / name, callbacks=[*callbacks, *others])

        prune(model, Pruning(0.8), train, epochs=4, steps_per_epoch=steps)
        return model

    whole = pruned("whole.safetensors")
    with pytest.raises(Killed):
        pruned("cut.safetensors", Kill())
    again = pruned("cut.safetensors")
    assert all(count == int(0.8 * size + 0.5) for count, size in zero_counts(again, Pruning()).values())
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one == 0, other == 0)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


JAX = """
import zoo
from export.compression.pruning import Pruning, prunable_kernels
from zoo.common.errors import UnsupportedExport
try:
    prunable_kernels(zoo.get("mlp_tiny"), Pruning())
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
from export.compression.masks import prune, zero_counts
from export.compression.pruning import Pruning
from training.optim.sgd import fused_sgd
x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
y = np.arange(64) % 10
keras.utils.set_random_seed(1)
with strategy.scope():
    model = zoo.get("mlp_tiny", input_shape=(8, 8, 1))
def train(model, epochs, callbacks):
    with strategy.scope():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(fused_sgd()(0.05, momentum=0.9), loss, jit_compile=False)
    model.fit(x, y, batch_size=32, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=0)
prune(model, Pruning(0.8), train, epochs=10, steps_per_epoch=2)
print(json.dumps([zero_counts(model, Pruning()), [np.asarray(v).tolist() for v in model.weights]]))
"""


@pytest.mark.slow
def test_same_under_mirrored_strategy(python):
    """Two replicas give the zeros of one and, up to rounding, its weights."""
    processes = [python("-c", MIRRORED, replicas, warm=True) for replicas in (0, 1)]
    found = [json.loads(p.communicate(timeout=240)[0].splitlines()[-1]) for p in processes]
    assert found[0][0] == found[1][0]
    assert all(count == int(0.8 * size + 0.5) for count, size in found[0][0].values())
    for one, two in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(one) == 0, np.asarray(two) == 0)


@pytest.mark.slow
def test_refused_on_jax(python):
    """On JAX the masks would be constants of the compiled step, so that pruning is refused."""
    out, err = python("-c", JAX, env={"KERAS_BACKEND": "jax"}).communicate(timeout=240)
    assert "backend='jax'" in out, err
