"""EfficientNet (Tan, Le 2019, arXiv:1905.11946): one network, scaled in width, depth and resolution at once.

Its blocks are inverted residuals (arXiv:1801.04381) with squeeze-and-excitation (Hu et al. 2017, arXiv:1709.01507)
and, in training, stochastic depth (Huang et al. 2016, arXiv:1603.09382).
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

from zoo.common.lazy import keras
from zoo.layers.blocks import activate, check_activation, check_rate, conv, conv_norm, depthwise_norm, divisible, norm
from zoo.layers.blocks import drop_path as drop_branch
from zoo.layers.heads import Head
from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import ModelSpec, register


class Stage(NamedTuple):
    """A row of table 1 of the paper."""

    expansion: int
    size: int
    stride: int
    channels: int
    depth: int


class Plan(NamedTuple):
    """The channels of the stem, and the stages."""

    stem: int
    stages: tuple[Stage, ...]

    def scaled(self, width: float, depth: float) -> Plan:
        """Return a wider and deeper plan (equation 3 of the paper)."""
        stages = (
            s._replace(channels=divisible(s.channels * width), depth=math.ceil(s.depth * depth)) for s in self.stages
        )
        return Plan(divisible(self.stem * width), tuple(stages))


B0 = Plan(
    stem=32,
    stages=(
        Stage(1, 3, 1, 16, 1),
        Stage(6, 3, 2, 24, 2),
        Stage(6, 5, 2, 40, 2),
        Stage(6, 3, 2, 80, 3),
        Stage(6, 5, 1, 112, 3),
        Stage(6, 5, 2, 192, 4),
        Stage(6, 3, 1, 320, 1),
    ),
)
TINY = Plan(stem=16, stages=(Stage(1, 3, 1, 8, 1), Stage(6, 3, 2, 16, 2), Stage(6, 5, 2, 24, 2)))


def mbconv(x: Any, stage: Stage, stride: int, *, style: dict[str, Any], rate: float, name: str) -> Any:
    """Inverted residual with squeeze-and-excitation; where the shape stays, a shortcut, and `rate` of drop_path."""
    channels = x.shape[-1]
    y = x
    if stage.expansion > 1:
        y = conv_norm(x, stage.expansion * channels, 1, name=f"{name}_expand", **style)
    y = depthwise_norm(y, stage.size, stride, name=f"{name}_depthwise", **style)
    y = squeeze_excite(y, channels // 4, activation=style["activation"], name=name)
    y = conv_norm(y, stage.channels, 1, name=f"{name}_project", **style | {"activation": None})
    if stride > 1 or channels != stage.channels:
        return y
    return keras.layers.Add(name=f"{name}_add")([x, drop_branch(y, rate, name=f"{name}_drop")])


def squeeze_excite(x: Any, filters: int, *, activation: str, name: str) -> Any:
    """Weigh each channel by what the averages of all channels say."""
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    y = activate(conv(y, filters, 1, use_bias=True, name=f"{name}_reduce"), activation, name=f"{name}_reduce")
    y = activate(conv(y, x.shape[-1], 1, use_bias=True, name=f"{name}_excite"), "sigmoid", name=f"{name}_excite")
    return keras.layers.Multiply(name=f"{name}_scale")([x, y])


TORCHVISION = NameMapping(
    rules=(
        ("stem", "features.0.0"),
        ("stem_norm", "features.0.1"),
        # The first stage has no expansion, so that everything in its blocks comes one earlier.
        (r"stage1_block(\d+)_depthwise", "features.1.{0:-1}.block.0.0"),
        (r"stage1_block(\d+)_depthwise_norm", "features.1.{0:-1}.block.0.1"),
        (r"stage1_block(\d+)_reduce", "features.1.{0:-1}.block.1.fc1"),
        (r"stage1_block(\d+)_excite", "features.1.{0:-1}.block.1.fc2"),
        (r"stage1_block(\d+)_project", "features.1.{0:-1}.block.2.0"),
        (r"stage1_block(\d+)_project_norm", "features.1.{0:-1}.block.2.1"),
        (r"stage(\d+)_block(\d+)_expand", "features.{0}.{1:-1}.block.0.0"),
        (r"stage(\d+)_block(\d+)_expand_norm", "features.{0}.{1:-1}.block.0.1"),
        (r"stage(\d+)_block(\d+)_depthwise", "features.{0}.{1:-1}.block.1.0"),
        (r"stage(\d+)_block(\d+)_depthwise_norm", "features.{0}.{1:-1}.block.1.1"),
        (r"stage(\d+)_block(\d+)_reduce", "features.{0}.{1:-1}.block.2.fc1"),
        (r"stage(\d+)_block(\d+)_excite", "features.{0}.{1:-1}.block.2.fc2"),
        (r"stage(\d+)_block(\d+)_project", "features.{0}.{1:-1}.block.3.0"),
        (r"stage(\d+)_block(\d+)_project_norm", "features.{0}.{1:-1}.block.3.1"),
        ("top", "features.8.0"),
        ("top_norm", "features.8.1"),
        ("logits", "classifier.1"),
    )
)
TIMM = NameMapping(
    rules=(
        ("stem", "conv_stem"),
        ("stem_norm", "bn1"),
        (r"stage1_block(\d+)_depthwise_norm", "blocks.0.{0:-1}.bn1"),
        (r"stage1_block(\d+)_project", "blocks.0.{0:-1}.conv_pw"),
        (r"stage1_block(\d+)_project_norm", "blocks.0.{0:-1}.bn2"),
        (r"stage(\d+)_block(\d+)_expand", "blocks.{0:-1}.{1:-1}.conv_pw"),
        (r"stage(\d+)_block(\d+)_expand_norm", "blocks.{0:-1}.{1:-1}.bn1"),
        (r"stage(\d+)_block(\d+)_depthwise", "blocks.{0:-1}.{1:-1}.conv_dw"),
        (r"stage(\d+)_block(\d+)_depthwise_norm", "blocks.{0:-1}.{1:-1}.bn2"),
        (r"stage(\d+)_block(\d+)_reduce", "blocks.{0:-1}.{1:-1}.se.conv_reduce"),
        (r"stage(\d+)_block(\d+)_excite", "blocks.{0:-1}.{1:-1}.se.conv_expand"),
        (r"stage(\d+)_block(\d+)_project", "blocks.{0:-1}.{1:-1}.conv_pwl"),
        (r"stage(\d+)_block(\d+)_project_norm", "blocks.{0:-1}.{1:-1}.bn3"),
        ("top", "conv_head"),
        ("top_norm", "bn2"),
        ("logits", "classifier"),
    )
)
# What Keras calls the parts of a block; it counts the blocks of a stage in letters.
PARTS = {
    "expand": "expand_conv",
    "expand_norm": "expand_bn",
    "depthwise": "dwconv",
    "depthwise_norm": "bn",
    "reduce": "se_reduce",
    "excite": "se_expand",
    "project": "project_conv",
    "project_norm": "project_bn",
}
KERAS = NameMapping(
    rules=(
        ("stem", "stem_conv"),
        ("stem_norm", "stem_bn"),
        *(
            (rf"stage(\d+)_block{i}_{ours}", f"block{{0}}{letter}_{theirs}")
            for i, letter in enumerate("abcdefgh", start=1)
            for ours, theirs in PARTS.items()
        ),
        ("top", "top_conv"),
        ("top_norm", "top_bn"),
        ("logits", "predictions"),
    ),
    ignored=(r"normalization(_\d+)?/.*|rescaling.*",),
    arguments={"epsilon": 1e-3, "tf_padding": True},
)
BICUBIC = dataclasses.replace(IMAGENET, interpolation="bicubic")
WHOLE = dataclasses.replace(BICUBIC, crop=1.0)
# The Inception way, values from -1 to 1, which adversarial training (arXiv:1911.09665) took.
SIGNED = PreprocessingConfig((127.5,), (127.5,), "bicubic", 0.875)


def like(size: int) -> ModelSpec:
    """Return what the ImageNet networks of an input size have in common."""
    paper, tags = "Tan, Le 2019, arXiv:1905.11946", ("image", "residual", "mobile")
    return ModelSpec((size, size, 3), 1000, 32, paper, tags, BICUBIC)


SMALL = dataclasses.replace(
    like(32),
    classes=10,
    min_size=8,
    tags=("image", "residual", "mobile", "small"),
    preprocessing=PreprocessingConfig((127.5,), (127.5,)),
)
imagenet = partial(register, name_mappings={"torchvision": TORCHVISION, "timm": TIMM, "keras": KERAS})


@imagenet(
    "efficientnet_b0",
    like(224),
    params=5_288_548,
    weights=(
        Weights("timm/efficientnet_b0.ra_in1k", 77.694, 224, BICUBIC),
        Weights("keras/EfficientNetB0", 77.1, 224, PreprocessingConfig()),
    ),
    plan=B0,
)
@imagenet(
    "efficientnet_b1",
    like(240),
    params=7_794_184,
    weights=(
        Weights("timm/efficientnet_b1.ft_in1k", 78.8, 256, WHOLE),
        Weights("keras/EfficientNetB1", 79.1, 240, PreprocessingConfig()),
    ),
    plan=B0.scaled(1.0, 1.1),
)
@imagenet(
    "efficientnet_b2",
    like(260),
    params=9_109_994,
    weights=(
        Weights("timm/efficientnet_b2.ra_in1k", 80.61, 288, WHOLE),
        Weights("keras/EfficientNetB2", 80.1, 260, PreprocessingConfig()),
    ),
    plan=B0.scaled(1.1, 1.2),
    dropout=0.3,
)
@imagenet(
    "efficientnet_b3",
    like(300),
    params=12_233_232,
    weights=(
        Weights("timm/efficientnet_b3.ra2_in1k", 82.242, 320, WHOLE),
        Weights("keras/EfficientNetB3", 81.6, 300, PreprocessingConfig()),
    ),
    plan=B0.scaled(1.2, 1.4),
    dropout=0.3,
)
@register(
    "tf_efficientnet_b0",
    like(224),
    params=5_288_548,
    weights=(
        Weights("timm/tf_efficientnet_b0.ns_jft_in1k", 78.67, 224, BICUBIC),
        Weights("timm/tf_efficientnet_b0.ap_in1k", 77.09, 224, SIGNED),
        Weights("timm/tf_efficientnet_b0.aa_in1k", 76.834, 224, BICUBIC),
        Weights("timm/tf_efficientnet_b0.in1k", 76.532, 224, BICUBIC),
    ),
    name_mappings={"timm": TIMM, "keras": KERAS},
    plan=B0,
    epsilon=1e-3,
    tf_padding=True,
)
@register("efficientnet_tiny", SMALL, params=32_222, plan=TINY)
def efficientnet(
    x: Any,
    head: Head,
    plan: Plan,
    *,
    activation: str = "silu",
    dropout: float = 0.2,
    drop_path: float = 0.2,
    epsilon: float = 1e-5,
    tf_padding: bool = False,
) -> Any:
    """Build an EfficientNet: a 3x3 stem at stride 2, stages of inverted residuals, a wide 1x1 convolution.

    Args:
        x: images (n, height, width, channels).
        head: turns the last feature map into logits.
        plan: the stem and the stages.
        activation: Keras activation of the hidden layers.
        dropout: share of the pooled features dropped in training.
        drop_path: share of examples for which the last branch is dropped in training; those before are dropped less,
            in proportion to their depth.
        epsilon: added to the variance in batch normalization; weights from TensorFlow expect 1e-3.
        tf_padding: pad strided convolutions as TensorFlow does; its weights expect it.

    Returns:
        The head's output, logits (n, classes).
    """
    check_activation("activation", activation)
    padding = "same" if tf_padding else "even"
    style = {"activation": activation, "norm": partial(norm, epsilon=epsilon), "padding": padding}
    x = conv_norm(x, plan.stem, 3, 2, name="stem", **style)
    step = check_rate(drop_path, "drop_path") / sum(stage.depth for stage in plan.stages)
    block = 0
    for i, stage in enumerate(plan.stages, start=1):
        x = head.level(x) if stage.stride > 1 else x
        for j in range(1, stage.depth + 1):
            stride = stage.stride if j == 1 else 1
            x = mbconv(x, stage, stride, style=style, rate=step * block, name=f"stage{i}_block{j}")
            block += 1
    x = conv_norm(x, 4 * plan.stages[-1].channels, 1, name="top", **style)
    return head(head.level(x), dropout)
