"""RealMLP against its formulas in NumPy: embeddings, scales, dense layers and activations."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from zoo.common.errors import BadOption

# Five numbers in two runs, three marks and categories that stay one-hot, and one column that is embedded.
COLUMNS = (2, -1, -3, 3, -12)
WIDTH = 21


def weights(model):
    """Return the weights of a model in float64, by layer and name."""
    return {(v.path.split("/")[-2], v.name): v.numpy().astype("float64") for v in model.variables}


def reference(found, x):
    """Return the logits of arXiv:2407.04491 for selu; slow weights are stored times 10, scales divided by 6."""
    places = [0, 1, 6, 7, 8]
    z = x[:, places]
    z = z / np.sqrt(1 + (z / 3) ** 2)
    slow = {name: 0.1 * found["columns", name] for name in ("frequencies", "phase_bias", "mixture", "mixture_bias")}
    waves = np.cos(2 * np.pi * z[:, :, None] * slow["frequencies"] + slow["phase_bias"])
    mixed = np.einsum("nkf,kfv->nkv", waves, slow["mixture"]) + slow["mixture_bias"]
    numbers = np.concatenate([z[:, :, None], mixed], axis=2).reshape(len(x), -1)
    h = np.concatenate([numbers, x[:, 2:6], x[:, 9:] @ found["columns", "embedding1"]], axis=1)
    h = h * 6 * found["scale", "scale"]
    for i in (1, 2):
        u = h @ found[f"dense{i}", "kernel"] / np.sqrt(h.shape[1]) + 0.1 * found[f"dense{i}_selu", "bias"]
        selu = 1.0507009873554805 * np.where(u > 0, u, 1.6732632423543772 * (np.exp(np.minimum(u, 0)) - 1))
        h = u + 0.1 * found[f"dense{i}_selu", "weight"] * (selu - u)
    return h / np.sqrt(h.shape[1]) @ found["logits", "kernel"] + found["logits", "bias"]


def rows(count=16):
    """Return vectors of a table with these columns; one has an unknown category."""
    draw = np.random.default_rng(0)
    x = draw.normal(0, 3, (count, WIDTH))
    x[:, 2] = draw.integers(0, 2, count)
    x[:, 3:6] = np.eye(3)[draw.integers(0, 3, count)]
    x[:, 9:] = np.eye(12)[draw.integers(0, 12, count)]
    x[0, 9:] = 0
    return x.astype("float32")


def test_logits_are_those_of_the_formulas():
    """Every part of the vector is where it belongs, with random scales and activation weights."""
    model = zoo.get("realmlp", input_shape=(WIDTH,), widths=(24, 16), columns=COLUMNS, classes=3)
    draw = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name in ("scale", "weight"):
            variable.assign(variable.numpy() * draw.uniform(0.5, 1.5, variable.shape))
    x = rows()
    np.testing.assert_allclose(model(x), reference(weights(model), x.astype("float64")), rtol=2e-4, atol=2e-5)


def test_start_of_the_weights():
    """Scales and activations start at 1, kernels with a deviation of 1, and logits close to 0."""
    found = weights(zoo.get("realmlp", input_shape=(WIDTH,), columns=COLUMNS))
    np.testing.assert_allclose(6 * found["scale", "scale"], 1, rtol=1e-6)
    np.testing.assert_allclose(0.1 * found["dense1_selu", "weight"], 1, rtol=1e-6)
    assert 0.95 < found["dense2", "kernel"].std() < 1.05
    assert 0.8 < 0.1 * found["dense2_selu", "bias"].std() < 1.2
    assert np.abs(zoo.get("realmlp", input_shape=(WIDTH,), columns=COLUMNS)(rows())).max() < 1


def test_only_categories():
    """A table without numbers has no waves."""
    model = zoo.get("realmlp_tiny", input_shape=(14,), columns=(-2, -12), classes=2)
    assert {v.name for v in model.get_layer("columns").variables} == {"embedding1"}
    assert np.isfinite(model(np.ones((2, 14), "float32"))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": (3, -2)}, "32 values together. Received: columns=.*which are 5"),
        ({"columns": (32, 0)}, "columns must be n for n numbers"),
        ({"widths": ()}, "at least one layer"),
        ({"activation": "sleu"}, "Did you mean 'selu'"),
    ],
)
def test_bad_options_are_refused(options, message):
    """One line says what is expected."""
    with pytest.raises(BadOption, match=message) as error:
        zoo.get("realmlp", **options)
    assert "\n" not in str(error.value)
