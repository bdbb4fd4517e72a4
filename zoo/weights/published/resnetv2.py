"""ResNet v2 (pre-activation): weights and names of timm and keras.applications."""

from __future__ import annotations

import dataclasses

from zoo.specs.preprocessing import SYMMETRIC
from zoo.specs.published import APACHE, KERAS_STORE, NameMapping, PublishedWeights

BLOCK = r"stage(\d+)_block(\d+)"
TIMM = NameMapping(
    rules=(
        ("stem", "stem.conv"),
        (rf"{BLOCK}_preact_norm", "stages.{0:-1}.blocks.{1:-1}.norm1"),
        (rf"{BLOCK}_conv(\d)", "stages.{0:-1}.blocks.{1:-1}.conv{2}"),
        (rf"{BLOCK}_conv(\d)_norm", "stages.{0:-1}.blocks.{1:-1}.norm{2:+1}"),
        (rf"{BLOCK}_shortcut", "stages.{0:-1}.blocks.{1:-1}.downsample.conv"),
        ("final_norm", "norm"),
        ("logits", "head.fc"),
    )
)
KERAS = NameMapping(
    rules=(
        ("stem", "conv1_conv"),
        (rf"{BLOCK}_preact_norm", "conv{0:+1}_block{1}_preact_bn"),
        (rf"{BLOCK}_conv(\d)", "conv{0:+1}_block{1}_{2}_conv"),
        (rf"{BLOCK}_conv(\d)_norm", "conv{0:+1}_block{1}_{2}_bn"),
        (rf"{BLOCK}_shortcut", "conv{0:+1}_block{1}_0_conv"),
        ("final_norm", "post_bn"),
        ("logits", "predictions"),
    )
)


def _timm(name: str, top1: float) -> PublishedWeights:
    """Return a checkpoint that timm evaluates at 288 pixels, uncropped (arXiv:2110.00476)."""
    preprocessing = dataclasses.replace(SYMMETRIC, interpolation="bicubic")
    return PublishedWeights(f"timm/{name}", top1, 288, preprocessing, APACHE)


def _keras(name: str, top1: float, md5: str) -> PublishedWeights:
    url = f"{KERAS_STORE}/resnet/{name.lower()}_weights_tf_dim_ordering_tf_kernels.h5"
    return PublishedWeights(f"keras/{name}", top1, preprocessing=SYMMETRIC, md5=md5, url=url)


WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "resnet50_v2": (_keras("ResNet50V2", 76.0, "3ef43a0b657b3be2300d5770ece849e0"),),
    "resnet101_v2": (_keras("ResNet101V2", 77.2, "6343647c601c52e1368623803854d971"),),
    "resnet152_v2": (_keras("ResNet152V2", 78.0, "a49b44d1979771252814e80f8ec446f9"),),
    "resnetv2_50": (_timm("resnetv2_50.a1h_in1k", 81.398),),
    "resnetv2_101": (_timm("resnetv2_101.a1h_in1k", 83.002),),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    "resnet50_v2": {"keras": KERAS},
    "resnet101_v2": {"keras": KERAS},
    "resnet152_v2": {"keras": KERAS},
    "resnetv2_50": {"timm": TIMM},
    "resnetv2_101": {"timm": TIMM},
}
