"""ConvNeXt (Liu, Mao, Wu, Feichtenhofer, Darrell, Xie 2022, arXiv:2201.03545): a ResNet brought up to what made
vision transformers good.

Patches instead of a stem with pooling, depthwise 7x7 convolutions, layer normalization and one GELU a block.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.layers.blocks import activate, check_activation, check_counts, check_rate, conv, depthwise
from zoo.layers.blocks import drop_path as drop_branch
from zoo.layers.heads import Head, pool
from zoo.layers.lazy import layers
from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import ModelSpec, register


def convnext_block(x: Any, *, activation: str, rate: float, name: str) -> Any:
    """Depthwise 7x7, then four times the channels and back, beside a shortcut; `rate` is that of drop_path."""
    y = depthwise(x, 7, use_bias=True, name=f"{name}_depthwise")
    y = layer_norm(y, name=f"{name}_norm")
    y = activate(conv(y, 4 * x.shape[-1], 1, use_bias=True, name=f"{name}_expand"), activation, name=f"{name}_expand")
    y = conv(y, x.shape[-1], 1, use_bias=True, name=f"{name}_project")
    y = layers.LayerScale(1e-6, name=f"{name}_scale")(y)
    return keras.layers.Add(name=f"{name}_add")([x, drop_branch(y, rate, name=f"{name}_drop")])


def layer_norm(x: Any, *, name: str) -> Any:
    """Normalize the channels of each pixel."""
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def patches(x: Any, filters: int, size: int, *, name: str) -> Any:
    """Project patches of size x size pixels that touch; what is left over at the far edges is not seen."""
    return conv(x, filters, size, size, padding="valid", use_bias=True, name=name)


def _torchvision() -> NameMapping:
    """Return torchvision's names; its stages and what comes before them are numbered in one go."""
    rules = [("stem", "features.0.0"), ("stem_norm", "features.0.1")]
    parts = {"depthwise": "0", "norm": "2", "expand": "3", "project": "5"}
    for i in range(1, 5):
        block = f"features.{2 * i - 1}.{{0:-1}}"
        rules += [(rf"stage{i}_block(\d+)_{ours}", f"{block}.block.{theirs}") for ours, theirs in parts.items()]
        rules += [(rf"stage{i}_block(\d+)_scale", f"{block}.layer_scale")]
        rules += [(f"stage{i}_down_norm", f"features.{2 * i - 2}.0"), (f"stage{i}_down", f"features.{2 * i - 2}.1")]
    return NameMapping((*rules, ("head_norm", "classifier.0"), ("logits", "classifier.2")))


TIMM = NameMapping(
    rules=(
        ("stem", "stem.0"),
        ("stem_norm", "stem.1"),
        (r"stage(\d+)_down_norm", "stages.{0:-1}.downsample.0"),
        (r"stage(\d+)_down", "stages.{0:-1}.downsample.1"),
        (r"stage(\d+)_block(\d+)_depthwise", "stages.{0:-1}.blocks.{1:-1}.conv_dw"),
        (r"stage(\d+)_block(\d+)_norm", "stages.{0:-1}.blocks.{1:-1}.norm"),
        (r"stage(\d+)_block(\d+)_expand", "stages.{0:-1}.blocks.{1:-1}.mlp.fc1"),
        (r"stage(\d+)_block(\d+)_project", "stages.{0:-1}.blocks.{1:-1}.mlp.fc2"),
        (r"stage(\d+)_block(\d+)_scale", "stages.{0:-1}.blocks.{1:-1}.gamma"),
        ("head_norm", "head.norm"),
        ("logits", "head.fc"),
    )
)
KERAS = NameMapping(
    rules=(
        ("stem", "convnext_tiny_stem_conv"),
        ("stem_norm", "convnext_tiny_stem_layernorm"),
        (r"stage(\d+)_down_norm", "convnext_tiny_downsampling_layernorm_{0:-2}"),
        (r"stage(\d+)_down", "convnext_tiny_downsampling_conv_{0:-2}"),
        (r"stage(\d+)_block(\d+)_depthwise", "convnext_tiny_stage_{0:-1}_block_{1:-1}_depthwise_conv"),
        (r"stage(\d+)_block(\d+)_norm", "convnext_tiny_stage_{0:-1}_block_{1:-1}_layernorm"),
        (r"stage(\d+)_block(\d+)_expand", "convnext_tiny_stage_{0:-1}_block_{1:-1}_pointwise_conv_1"),
        (r"stage(\d+)_block(\d+)_project", "convnext_tiny_stage_{0:-1}_block_{1:-1}_pointwise_conv_2"),
        (r"stage(\d+)_block(\d+)_scale", "convnext_tiny_stage_{0:-1}_block_{1:-1}_layer_scale"),
        ("head_norm", "convnext_tiny_head_layernorm"),
        ("logits", "convnext_tiny_head_dense"),
    )
)
BICUBIC = dataclasses.replace(IMAGENET, interpolation="bicubic")
WHOLE = dataclasses.replace(BICUBIC, crop=1.0)
WEIGHTS = (
    Weights("timm/convnext_tiny.in12k_ft_in1k", 84.45, 288, WHOLE),
    Weights("timm/convnext_tiny.fb_in1k", 82.698, 288, WHOLE),
    Weights("keras/ConvNeXtTiny", 81.3, 224, PreprocessingConfig()),
)
LIKE = ModelSpec((224, 224, 3), 1000, 32, "Liu et al. 2022, arXiv:2201.03545", ("image", "residual"), BICUBIC)
SMALL = dataclasses.replace(
    LIKE,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=8,
    tags=(*LIKE.tags, "small"),
    preprocessing=PreprocessingConfig((127.5,), (127.5,)),
)


@register(
    "convnext_tiny",
    LIKE,
    params=28_589_128,
    weights=WEIGHTS,
    name_mappings={"torchvision": _torchvision(), "timm": TIMM, "keras": KERAS},
    depths=(3, 3, 9, 3),
    widths=(96, 192, 384, 768),
)
# The tiny network of the paper has 28 million parameters; this one is small.
@register("convnext_micro_tiny", SMALL, params=60_954, depths=(1, 1, 1), widths=(16, 32, 64), patch=2)
def convnext(
    x: Any,
    head: Head,
    *,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    patch: int = 4,
    activation: str = "gelu",
    dropout: float = 0.0,
    drop_path: float = 0.1,
) -> Any:
    """Build a ConvNeXt: patches, then stages that each but the first halve the map.

    Args:
        x: images (n, height, width, channels).
        head: turns the last feature map into logits.
        depths: number of blocks of each stage.
        widths: channels of each stage.
        patch: height and width of the first patches in pixels.
        activation: Keras activation of the hidden layers.
        dropout: share of the pooled features dropped in training.
        drop_path: share of examples for which the last branch is dropped in training; those before are dropped less,
            in proportion to their depth.

    Returns:
        The head's output, logits (n, classes).
    """
    check_activation("activation", activation)
    check_counts("patch", (patch,))
    if not depths or len(check_counts("depths", depths)) != len(check_counts("widths", widths)):
        raise BadOption(
            f"depths and widths must have one number for each stage. Received: depths={depths}, widths={widths}"
        )
    step = check_rate(drop_path, "drop_path") / max(1, sum(depths) - 1)
    x = layer_norm(patches(x, widths[0], patch, name="stem"), name="stem_norm")
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        if i > 1:
            x = patches(layer_norm(head.level(x), name=f"stage{i}_down_norm"), width, 2, name=f"stage{i}_down")
        for j in range(1, depth + 1):
            rate = step * (sum(depths[: i - 1]) + j - 1)
            x = convnext_block(x, activation=activation, rate=rate, name=f"stage{i}_block{j}")
    return head(head.level(x), dropout, neck=lambda y: layer_norm(pool(y), name="head_norm"))
