"""ViT and DeiT: weights and names of timm."""

from __future__ import annotations

import dataclasses

from zoo.specs.preprocessing import IMAGENET_BICUBIC, PreprocessingConfig
from zoo.specs.published import APACHE, NameMapping, PublishedWeights

TIMM = NameMapping(
    rules=(
        ("patches", "patch_embed.proj"),
        ("token", "cls_token"),
        ("distillation_token", "dist_token"),
        ("positions", "pos_embed"),
        (r"block(\d+)_attention_norm", "blocks.{0:-1}.norm1"),
        (r"block(\d+)_attention_qkv", "blocks.{0:-1}.attn.qkv"),
        (r"block(\d+)_attention_project", "blocks.{0:-1}.attn.proj"),
        (r"block(\d+)_attention_scale", "blocks.{0:-1}.ls1.gamma"),
        (r"block(\d+)_feed_norm", "blocks.{0:-1}.norm2"),
        (r"block(\d+)_feed_expand", "blocks.{0:-1}.mlp.fc1"),
        (r"block(\d+)_feed_project", "blocks.{0:-1}.mlp.fc2"),
        (r"block(\d+)_feed_scale", "blocks.{0:-1}.ls2.gamma"),
        ("norm", "norm"),
        ("logits", "head"),
        ("distillation_logits", "head_dist"),
    )
)
VIT_PIXELS = PreprocessingConfig(mean=(127.5,), std=(127.5,), interpolation="bicubic", crop=0.9)
DEIT_PIXELS = dataclasses.replace(IMAGENET_BICUBIC, crop=0.9)


def _timm(
    name: str, *checkpoints: tuple[str, float], preprocessing: PreprocessingConfig = VIT_PIXELS
) -> tuple[PublishedWeights, ...]:
    """Return timm's checkpoints of a model: pairs of tag and top-1 accuracy."""
    return tuple(
        PublishedWeights(f"timm/{name}.{tag}", top1, preprocessing=preprocessing, license=APACHE)
        for tag, top1 in checkpoints
    )


def _deit(name: str, top1: float) -> tuple[PublishedWeights, ...]:
    return _timm(name, ("fb_in1k", top1), preprocessing=DEIT_PIXELS)


AUGREG = "augreg_in21k_ft_in1k"
VIT_BASE = (("augreg2_in21k_ft_in1k", 85.096), (AUGREG, 84.532), ("orig_in21k_ft_in1k", 81.786))
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "vit_tiny_patch16_224": _timm("vit_tiny_patch16_224", (AUGREG, 75.454)),
    "vit_small_patch16_224": _timm("vit_small_patch16_224", (AUGREG, 81.384)),
    "vit_small_patch32_224": _timm("vit_small_patch32_224", (AUGREG, 75.994)),
    "vit_base_patch16_224": _timm("vit_base_patch16_224", *VIT_BASE),
    "vit_base_patch32_224": _timm("vit_base_patch32_224", (AUGREG, 80.716)),
    "vit_large_patch16_224": _timm("vit_large_patch16_224", (AUGREG, 85.834)),
    "deit_tiny_patch16_224": _deit("deit_tiny_patch16_224", 72.172),
    "deit_small_patch16_224": _deit("deit_small_patch16_224", 79.844),
    "deit_base_patch16_224": _deit("deit_base_patch16_224", 81.992),
    "deit_tiny_distilled_patch16_224": _deit("deit_tiny_distilled_patch16_224", 74.5),
    "deit_small_distilled_patch16_224": _deit("deit_small_distilled_patch16_224", 81.218),
    "deit_base_distilled_patch16_224": _deit("deit_base_distilled_patch16_224", 83.386),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {name: {"timm": TIMM} for name in WEIGHTS}
