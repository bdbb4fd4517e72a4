"""Fully connected networks: the perceptron (Rosenblatt 1958) and the multi-layer perceptron.

Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the brain", 1958;
Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo._blocks import Head, check_activation, check_counts, drop
from zoo._errors import BadOption
from zoo._lazy import keras
from zoo._preprocessing import Preprocessing
from zoo._registry import ModelSpec, register

LIKE = ModelSpec(
    input_shape=(784,),
    classes=10,
    paper="Rumelhart, Hinton, Williams 1986, Nature 323:533",
    tags=("dense", "tabular"),
    preprocessing=Preprocessing(std=(255.0,)),
)
variant = partial(register, like=LIKE)


@variant("perceptron", params=7_850, widths=())
@variant("mlp", params=203_530, widths=(256,))
@variant("mlp_mnist", params=109_386, widths=(128, 64))
@variant("mlp_tiny", params=25_450, widths=(32,))
def fcnn(
    x: Any,
    head: Head,
    *,
    widths: tuple[int, ...] = (),
    depth: int = 0,
    activation: str = "relu",
    dropout: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
) -> Any:
    """Build a fully connected network; inputs of any shape are flattened.

    Args:
        x: inputs (n, features) or of higher rank.
        head: turns the last hidden layer (n, widths[-1]) into logits.
        widths: units of each hidden layer; none leaves the perceptron.
        depth: number of hidden layers when `widths` is one number, which is repeated.
        activation: Keras activation of the hidden layers.
        dropout: share of units dropped after each hidden layer in training.
        l1: L1 penalty on the hidden kernels.
        l2: L2 penalty on the hidden kernels.

    Returns:
        The head's output, logits (n, classes).
    """
    if len(x.shape) > 2:
        x = keras.layers.Flatten(name="flatten")(x)
    check_activation("activation", activation)
    for i, width in enumerate(_repeated(widths, depth), start=1):
        x = keras.layers.Dense(width, activation, kernel_regularizer=_penalty(l1, l2), name=f"dense{i}")(x)
        x = drop(x, dropout, name=f"dropout{i}")
    return head(x)


def _repeated(widths: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return the width of each hidden layer."""
    check_counts("widths", widths)
    if not depth:
        return widths
    if depth < 0 or len(widths) != 1:
        raise BadOption(f"depth repeats one width, so it needs exactly one. Received: depth={depth}, widths={widths}")
    return widths * depth


def _penalty(l1: float, l2: float) -> Any:
    """Return the regularizer of a kernel, or None."""
    if not (l1 >= 0 and l2 >= 0):
        raise BadOption(f"l1 and l2 must be at least 0. Received: l1={l1}, l2={l2}")
    return keras.regularizers.L1L2(l1, l2) if l1 or l2 else None
