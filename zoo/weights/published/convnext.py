"""ConvNeXt: weights of timm and keras.applications; names of torchvision, timm and keras.applications."""

from __future__ import annotations

import dataclasses

from zoo.specs.preprocessing import IMAGENET_BICUBIC, PreprocessingConfig
from zoo.specs.published import APACHE, KERAS_STORE, NameMapping, PublishedWeights

BLOCK = r"stage(\d+)_block(\d+)"


def _torchvision() -> NameMapping:
    """Return the names of torchvision, which numbers stages and downsampling layers in one sequence."""
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
        (rf"{BLOCK}_depthwise", "stages.{0:-1}.blocks.{1:-1}.conv_dw"),
        (rf"{BLOCK}_norm", "stages.{0:-1}.blocks.{1:-1}.norm"),
        (rf"{BLOCK}_expand", "stages.{0:-1}.blocks.{1:-1}.mlp.fc1"),
        (rf"{BLOCK}_project", "stages.{0:-1}.blocks.{1:-1}.mlp.fc2"),
        (rf"{BLOCK}_scale", "stages.{0:-1}.blocks.{1:-1}.gamma"),
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
        (rf"{BLOCK}_depthwise", "convnext_tiny_stage_{0:-1}_block_{1:-1}_depthwise_conv"),
        (rf"{BLOCK}_norm", "convnext_tiny_stage_{0:-1}_block_{1:-1}_layernorm"),
        (rf"{BLOCK}_expand", "convnext_tiny_stage_{0:-1}_block_{1:-1}_pointwise_conv_1"),
        (rf"{BLOCK}_project", "convnext_tiny_stage_{0:-1}_block_{1:-1}_pointwise_conv_2"),
        (rf"{BLOCK}_scale", "convnext_tiny_stage_{0:-1}_block_{1:-1}_layer_scale"),
        ("head_norm", "convnext_tiny_head_layernorm"),
        ("logits", "convnext_tiny_head_dense"),
    )
)
BICUBIC_100 = dataclasses.replace(IMAGENET_BICUBIC, crop=1.0)
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "convnext_tiny": (
        PublishedWeights("timm/convnext_tiny.in12k_ft_in1k", 84.45, 288, BICUBIC_100, APACHE),
        PublishedWeights("timm/convnext_tiny.fb_in1k", 82.698, 288, BICUBIC_100, APACHE),
        PublishedWeights(
            "keras/ConvNeXtTiny",
            81.3,
            224,
            PreprocessingConfig(),
            sha256="8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
            url=f"{KERAS_STORE}/convnext/convnext_tiny.h5",
        ),
    ),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    "convnext_tiny": {"torchvision": _torchvision(), "timm": TIMM, "keras": KERAS}
}
