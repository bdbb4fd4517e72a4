"""RealMLP, a multi-layer perceptron for tables (Holzmüller, Grinsztajn and Steinwart 2024, arXiv:2407.04491).

Numbers are embedded by learned waves and categories by tables, each feature has a scale that learns fast, and dense
layers are parametrized so that kernels start with a deviation of 1 (the neural tangent parametrization). The paper's
recipe, "tuned defaults", is `training/recipes/table_realmlp.py`. It differs from the paper's in what starts weights:
none depends on the data, and the last layer is close to 0, as in the paper's simplified variant.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import check_activation, check_counts, check_factor, drop
from zoo.layers.heads import Head
from zoo.layers.lazy import layers, tabular
from zoo.specs.registry import ModelSpec, register

# LiteRT computes them in floating point alone.
WAVES = "LiteRT has no integer kernel for the cosine of its numbers. Use tflite_dynamic."
variant = partial(
    register,
    like=ModelSpec(
        input_shape=(32,),
        classes=10,
        paper="Holzmüller, Grinsztajn, Steinwart 2024, arXiv:2407.04491",
        tags=("dense", "tabular"),
        unsupported=(("tflite_int8", WAVES), ("tflite_int16x8", WAVES)),
    ),
)


@variant("realmlp", params=170_730)
@variant("realmlp_tiny", params=8_362, widths=(32, 32))
def realmlp(
    x: Any,
    head: Head,
    *,
    columns: tuple[int, ...] = (),
    widths: tuple[int, ...] = (256, 256, 256),
    activation: str = "selu",
    dropout: float = 0.15,
    sigma: float = 0.1,
) -> Any:
    """Build a RealMLP; inputs of any shape are flattened.

    Args:
        x: numbers with a median of 0 and quartiles 1 apart, and 0 or 1 for categories, (n, features) or of higher rank.
        head: computes logits from the last hidden layer (n, widths[-1]).
        columns: parts of the features in their order: n for n numbers, -n for a column of n values that are 0 or 1; ()
            for numbers alone. In training it follows from the table.
        widths: units of each hidden layer.
        activation: Keras activation of the hidden layers, selu for classes and mish for numbers in the paper.
        dropout: fraction of the units dropped after each hidden layer in training.
        sigma: standard deviation of the initial frequencies of numbers; higher ones fit functions that jump.

    Returns:
        The head's output, logits (n, classes).
    """
    if len(x.shape) > 2:
        x = keras.layers.Flatten(name="flatten")(x)
    _check(columns, widths, activation, x.shape[-1])
    check_factor("sigma", sigma)
    x = tabular.ColumnEmbedding(columns, tabular.waves_initializer(sigma), name="columns")(x)
    x = tabular.FeatureScale(x.shape[-1] ** -0.5, name="scale")(x)
    for i, width in enumerate(widths, start=1):
        x = layers.Dense(
            width,
            use_bias=False,
            # A deviation of 1; the layer before has divided by the root of the number of features.
            kernel_initializer=layers.VarianceScaling(float(x.shape[-1]), "fan_in", "untruncated_normal"),
            name=f"dense{i}",
        )(x)
        x = tabular.ParametricActivation(activation, width**-0.5, name=f"dense{i}_{activation}")(x)
        x = drop(x, dropout, name=f"dropout{i}")
    return head(x)


def _check(columns: tuple[int, ...], widths: tuple[int, ...], activation: str, features: int) -> None:
    """Raise BadOption for columns that are not those of the features, no layers, or an unknown activation."""
    if columns and (sum(map(abs, columns)) != features or 0 in columns):
        raise BadOption(
            f"columns must be n for n numbers and -n for a column of n values of 0 or 1, {features} values together. "
            f"Received: columns={columns}, which are {sum(map(abs, columns))}"
        )
    if not check_counts("widths", widths):
        raise BadOption("widths must have at least one layer. Received: widths=(). Use perceptron for none.")
    check_activation("activation", activation)
