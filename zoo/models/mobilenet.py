"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen 2018, arXiv:1801.04381).

A block widens a thin map, filters each channel by itself and projects back without an activation; the shortcut joins
the thin ends.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import check_activation, conv_norm, depthwise_norm, divisible, norm
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import ModelSpec, register


class Stage(NamedTuple):
    """A row of table 2 of the paper: t, c, n and s."""

    expansion: int
    channels: int
    depth: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
TINY = (Stage(1, 8, 1, 1), Stage(6, 16, 2, 2), Stage(6, 24, 2, 2))


def inverted_residual(x: Any, filters: int, stride: int, *, expansion: int, style: dict[str, Any], name: str) -> Any:
    """Widen by 1x1, filter each channel by 3x3, project by 1x1; a shortcut where the shape stays."""
    channels = x.shape[-1]
    y = x if expansion == 1 else conv_norm(x, expansion * channels, 1, name=f"{name}_expand", **style)
    y = depthwise_norm(y, 3, stride, name=f"{name}_depthwise", **style)
    y = conv_norm(y, filters, 1, name=f"{name}_project", **style | {"activation": None})
    return keras.layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and channels == filters else y


# torchvision and Keras number the blocks throughout.
BLOCKS = [f"stage{i}_block{j}" for i, stage in enumerate(STAGES, start=1) for j in range(1, stage.depth + 1)]
# What torchvision calls the parts of a block.
PARTS = {
    "expand": "0.0",
    "expand_norm": "0.1",
    "depthwise": "1.0",
    "depthwise_norm": "1.1",
    "project": "2",
    "project_norm": "3",
}
TORCHVISION = NameMapping(
    rules=(
        ("stem", "features.0.0"),
        ("stem_norm", "features.0.1"),
        ("stage1_block1_depthwise", "features.1.conv.0.0"),
        ("stage1_block1_depthwise_norm", "features.1.conv.0.1"),
        ("stage1_block1_project", "features.1.conv.1"),
        ("stage1_block1_project_norm", "features.1.conv.2"),
        *(
            (f"{block}_{ours}", f"features.{i}.conv.{theirs}")
            for i, block in enumerate(BLOCKS, start=1)
            for ours, theirs in PARTS.items()
        ),
        ("top", "features.18.0"),
        ("top_norm", "features.18.1"),
        ("logits", "classifier.1"),
    )
)
TIMM = NameMapping(
    rules=(
        ("stem", "conv_stem"),
        ("stem_norm", "bn1"),
        ("stage1_block1_depthwise", "blocks.0.0.conv_dw"),
        ("stage1_block1_depthwise_norm", "blocks.0.0.bn1"),
        ("stage1_block1_project", "blocks.0.0.conv_pw"),
        ("stage1_block1_project_norm", "blocks.0.0.bn2"),
        (r"stage(\d+)_block(\d+)_expand", "blocks.{0:-1}.{1:-1}.conv_pw"),
        (r"stage(\d+)_block(\d+)_expand_norm", "blocks.{0:-1}.{1:-1}.bn1"),
        (r"stage(\d+)_block(\d+)_depthwise", "blocks.{0:-1}.{1:-1}.conv_dw"),
        (r"stage(\d+)_block(\d+)_depthwise_norm", "blocks.{0:-1}.{1:-1}.bn2"),
        (r"stage(\d+)_block(\d+)_project", "blocks.{0:-1}.{1:-1}.conv_pwl"),
        (r"stage(\d+)_block(\d+)_project_norm", "blocks.{0:-1}.{1:-1}.bn3"),
        ("top", "conv_head"),
        ("top_norm", "bn2"),
        ("logits", "classifier"),
    )
)
KERAS = NameMapping(
    rules=(
        ("stem", "Conv1"),
        ("stem_norm", "bn_Conv1"),
        ("stage1_block1_(depthwise|project)", "expanded_conv_{0}"),
        ("stage1_block1_(depthwise|project)_norm", "expanded_conv_{0}_BN"),
        *((f"{block}_(expand|depthwise|project)", f"block_{i}_{{0}}") for i, block in enumerate(BLOCKS)),
        *((f"{block}_(expand|depthwise|project)_norm", f"block_{i}_{{0}}_BN") for i, block in enumerate(BLOCKS)),
        ("top", "Conv_1"),
        ("top_norm", "Conv_1_bn"),
        ("logits", "predictions"),
    ),
    arguments={"epsilon": 1e-3, "tf_padding": True},
)
WEIGHTS = (
    Weights("timm/mobilenetv2_100.ra_in1k", 72.976, 224, dataclasses.replace(IMAGENET, interpolation="bicubic")),
    Weights("keras/MobileNetV2", 71.3, 224, PreprocessingConfig((127.5,), (127.5,))),
)
TAGS = ("image", "residual", "mobile")
LIKE = ModelSpec((224, 224, 3), 1000, 32, "Sandler et al. 2018, arXiv:1801.04381", TAGS, IMAGENET)
SMALL = dataclasses.replace(
    LIKE,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=8,
    tags=(*TAGS, "small"),
    preprocessing=PreprocessingConfig((127.5,), (127.5,)),
)


@register(
    "mobilenet_v2",
    LIKE,
    params=3_504_872,
    weights=WEIGHTS,
    name_mappings={"torchvision": TORCHVISION, "timm": TIMM, "keras": KERAS},
    stages=STAGES,
)
@register("mobilenet_tiny", SMALL, params=24_378, stages=TINY)
def mobilenet(
    x: Any,
    head: Head,
    stages: tuple[Stage, ...],
    *,
    alpha: float = 1.0,
    activation: str = "relu6",
    dropout: float = 0.2,
    epsilon: float = 1e-5,
    tf_padding: bool = False,
) -> Any:
    """Build a MobileNetV2: a 3x3 stem at stride 2, inverted residuals, a wide 1x1 convolution.

    Args:
        x: images (n, height, width, channels).
        head: turns the last feature map into logits.
        stages: the inverted residuals.
        alpha: width multiplier of all channels, which stay divisible by 8; below 1 the last ones keep their number.
        activation: Keras activation of the hidden layers.
        dropout: share of the pooled features dropped in training.
        epsilon: added to the variance in batch normalization; weights from TensorFlow expect 1e-3.
        tf_padding: pad strided convolutions as TensorFlow does; its weights expect it.

    Returns:
        The head's output, logits (n, classes).
    """
    check_activation("activation", activation)
    if not 0 < alpha < float("inf"):
        raise BadOption(f"alpha must be a number above 0. Received: alpha={alpha}")
    padding = "same" if tf_padding else "even"
    style = {"activation": activation, "norm": partial(norm, epsilon=epsilon), "padding": padding}
    x = conv_norm(x, divisible(2 * stages[0].channels * alpha), 3, 2, name="stem", **style)
    for i, stage in enumerate(stages, start=1):
        filters = divisible(stage.channels * alpha)
        for j in range(1, stage.depth + 1):
            stride = stage.stride if j == 1 else 1
            x = head.level(x) if stride > 1 else x
            name = f"stage{i}_block{j}"
            x = inverted_residual(x, filters, stride, expansion=stage.expansion, style=style, name=name)
    x = conv_norm(x, divisible(4 * stages[-1].channels * max(1.0, alpha)), 1, name="top", **style)
    return head(head.level(x), dropout)
