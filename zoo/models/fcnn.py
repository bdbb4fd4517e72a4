"""Fully connected networks: the perceptron, the multi-layer perceptron, DropConnect and the highway network.

Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the brain", 1958;
Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323, 1986;
Wan, Zeiler, Zhang, LeCun, Fergus, "Regularization of neural networks using DropConnect", ICML 2013;
Srivastava, Greff, Schmidhuber, "Highway networks", 2015 (arXiv:1505.00387).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import GLOROT, check_activation, check_counts, check_rate, dense, drop
from zoo.layers.heads import Head
from zoo.layers.lazy import layers
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.registry import ModelSpec, register

MLP = ModelSpec(
    input_shape=(784,),
    classes=10,
    paper="Rumelhart, Hinton, Williams 1986, Nature 323:533",
    tags=("dense", "tabular"),
    preprocessing=PreprocessingConfig(std=(255.0,)),
)
variant = partial(register, like=MLP)


@dataclasses.dataclass(frozen=True)
class Regularization:
    """Regularization of the hidden layers.

    Args:
        dropout: fraction of the units dropped after each hidden layer in training.
        drop_connect: fraction of the hidden kernels' weights dropped for each batch in training (Wan et al. 2013);
            inference uses all weights, an approximation of the mean that the paper estimates by sampling.
        l1: L1 penalty on the hidden kernels.
        l2: L2 penalty on the hidden kernels.
    """

    dropout: float = 0.0
    drop_connect: float = 0.0
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        check_rate(self.drop_connect, "drop_connect")
        if not (self.l1 >= 0 and self.l2 >= 0):
            raise BadOption(f"l1 and l2 must be at least 0. Received: l1={self.l1}, l2={self.l2}")

    def penalty(self) -> Any:
        """Return the regularizer of a kernel, or None."""
        return keras.regularizers.L1L2(self.l1, self.l2) if self.l1 or self.l2 else None


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
    regularization: Regularization = Regularization(),
) -> Any:
    """Build a fully connected network; inputs of any shape are flattened.

    Args:
        x: inputs (n, features) or of higher rank.
        head: computes logits from the last hidden layer (n, widths[-1]).
        widths: units of each hidden layer; () for the perceptron.
        depth: number of hidden layers of the one width in `widths`; 0 for one layer for each width.
        activation: Keras activation of the hidden layers.
        regularization: dropout, drop_connect, l1 and l2.

    Returns:
        The head's output, logits (n, classes).
    """
    return head(_hidden(x, _repeated(widths, depth), activation, regularization))


gated = partial(
    register,
    like=dataclasses.replace(
        MLP,
        paper="Srivastava, Greff, Schmidhuber 2015, arXiv:1505.00387",
        tags=("dense", "tabular", "highway"),
    ),
)


@gated("highway", params=85_660)
@gated("highway_tiny", params=33_898, width=32, depth=5)
def highway(
    x: Any,
    head: Head,
    *,
    width: int = 50,
    depth: int = 10,
    gate_bias: float = -2.0,
    activation: str = "relu",
    dropout: float = 0.0,
) -> Any:
    """Build a highway network: a dense layer, then layers with a learned gate between transform and input.

    Args:
        x: inputs (n, features) or of higher rank.
        head: computes logits from the last hidden layer (n, width).
        width: units of every hidden layer.
        depth: hidden layers, counted as in the paper: the first is plain, the others are highway layers.
        gate_bias: initial bias of the transform gates; below 0 a layer initially carries its input.
        activation: Keras activation of the hidden layers.
        dropout: fraction of the last hidden layer's units dropped in training.

    Returns:
        The head's output, logits (n, classes).
    """
    check_counts("width", (width,))
    check_counts("depth", (depth,))
    x = _hidden(x, (width,), activation, Regularization())
    for i in range(2, depth + 1):
        x = highway_layer(x, activation, gate_bias, name=f"highway{i}")
    return head(x, dropout)


def highway_layer(x: Any, activation: str, gate_bias: float, *, name: str) -> Any:
    """y = T(x) H(x) + (1 - T(x)) x, equation 3, written as x + T(x) (H(x) - x)."""
    transform = dense(x, x.shape[-1], activation, name=f"{name}_transform")
    gate = layers.Dense(
        x.shape[-1],
        "sigmoid",
        kernel_initializer=layers.VarianceScaling(*GLOROT),
        bias_initializer=keras.initializers.Constant(gate_bias),
        name=f"{name}_gate",
    )(x)
    change = keras.layers.Subtract(name=f"{name}_change")([transform, x])
    change = keras.layers.Multiply(name=f"{name}_gated")([gate, change])
    return keras.layers.Add(name=f"{name}_add")([x, change])


def _hidden(x: Any, widths: tuple[int, ...], activation: str, regularization: Regularization) -> Any:
    """Flatten, then stack dense layers named dense1, dense2, …"""
    check_activation("activation", activation)
    if len(x.shape) > 2:
        x = keras.layers.Flatten(name="flatten")(x)
    options = {"regularizer": regularization.penalty(), "drop_connect": regularization.drop_connect}
    for i, width in enumerate(widths, start=1):
        x = dense(x, width, activation, name=f"dense{i}", **options)
        x = drop(x, regularization.dropout, name=f"dropout{i}")
    return x


def _repeated(widths: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return the width of each hidden layer."""
    check_counts("widths", widths)
    if not depth:
        return widths
    if depth < 0 or len(widths) != 1:
        raise BadOption(
            f"depth must be at least 0 and needs exactly one width to repeat. Received: depth={depth}, widths={widths}"
        )
    return widths * depth
