"""ViT (Dosovitskiy et al. 2020, arXiv:2010.11929) and DeiT (Touvron et al. 2020, arXiv:2012.12877): images as words.

An image is cut into patches, each is projected to a token, and a transformer's encoder does the rest. Tiny and small
are the sizes of DeiT, which Steiner et al. 2021 (arXiv:2106.10270) trained as ViT too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.common.errors import BadOption
from zoo.layers.attention import Block, encoder_block, layer_norm
from zoo.layers.blocks import check_counts, check_rate, conv, drop
from zoo.layers.heads import Head, pool
from zoo.layers.lazy import sequence
from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig
from zoo.specs.published import NameMapping, Weights
from zoo.specs.registry import ModelSpec, register

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
HALF = PreprocessingConfig((127.5,), (127.5,), "bicubic", 0.9)
DEIT = dataclasses.replace(IMAGENET, interpolation="bicubic", crop=0.9)
LIKE = ModelSpec(
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=16,
    paper="Dosovitskiy et al. 2020, arXiv:2010.11929",
    tags=("image", "attention", "residual"),
    preprocessing=HALF,
)
LIKE_DEIT = dataclasses.replace(LIKE, paper="Touvron et al. 2020, arXiv:2012.12877", preprocessing=DEIT)
SMALL = {
    "input_shape": (32, 32, 3),
    "classes": 10,
    "min_size": 4,
    "tags": (*LIKE.tags, "small"),
    "preprocessing": PreprocessingConfig((127.5,), (127.5,)),
}


@dataclasses.dataclass(frozen=True)
class Trunk:
    """What makes vectors of an image.

    Args:
        width: length of a token's vector.
        depth: number of blocks.
        patch: height and width of a patch in pixels; what is left over at the far edges is not seen.
        pooling: "class" for a learnt token in front of the patches, "mean" for the average of the patches beside it.
        distillation: "average" for one more token, which learns from a teacher, and the average of both classifiers
            (arXiv:2012.12877, section 4); "separate" for both classifiers' logits, to train them; "none".
        drop_path: share of examples for which a branch of the last block is dropped in training; those before are
            dropped less, in proportion to their depth.
        lean: compute in the last block only the tokens that are pooled, which takes a fifteenth off the time to train
            and to infer and changes no logit; there is no last feature map then.
    """

    width: int = 64
    depth: int = 12
    patch: int = 16
    pooling: str = "class"
    distillation: str = "none"
    drop_path: float = 0.0
    lean: bool = False

    def check(self, height: int, width: int) -> Trunk:
        """Return the trunk, or raise BadOption if it cannot see an image of this size."""
        for name in ("width", "depth", "patch"):
            check_counts(name, (getattr(self, name),))
        check_rate(self.drop_path, "drop_path")
        if self.patch > min(height, width):
            raise BadOption(
                f"patch must be at most the image's height and width. Received: patch={self.patch}, {height}x{width}"
            )
        for name, known in (("pooling", ("class", "mean")), ("distillation", ("none", "average", "separate"))):
            if getattr(self, name) not in known:
                raise BadOption(f"{name} must be one of {', '.join(known)}. Received: {name}={getattr(self, name)!r}")
        if self.distillation != "none" and self.pooling != "class":
            raise BadOption(
                f"distillation goes with pooling='class'. Received: distillation={self.distillation!r}, "
                f"pooling={self.pooling!r}"
            )
        if self.lean and self.pooling != "class":
            raise BadOption(f"lean goes with pooling='class'. Received: lean=True, pooling={self.pooling!r}")
        return self

    def rate(self, block: int) -> float:
        """Return how often the branches of a block, counted from 1, are dropped."""
        return self.drop_path * (block - 1) / max(1, self.depth - 1)

    @property
    def tokens(self) -> int:
        """How many learnt tokens stand in front of the patches."""
        return 1 if self.distillation == "none" else 2

    @property
    def marked(self) -> set[int]:
        """Blocks whose output is a feature map: after a quarter, a half and three quarters of them."""
        return {self.depth * i // 4 for i in (1, 2, 3)}


def published(name: str, *trained: tuple[str, float], preprocessing: PreprocessingConfig = HALF) -> dict[str, Any]:
    """Return what a variant that timm has weights for is registered with: their tags and top-1, and their names."""
    weights = [Weights(f"timm/{name}.{tag}", top1, preprocessing=preprocessing) for tag, top1 in trained]
    return {"weights": weights, "layouts": {"timm": TIMM}}


def vit_variant(name: str, params: int, *trained: tuple[str, float], width: int, patch: int, **size: int) -> Any:
    """Register a size of ViT, whose heads see 64 numbers each."""
    like = dataclasses.replace(LIKE, min_size=patch)
    known = published(name, *trained)
    return register(name, like, params=params, width=width, patch=patch, attention_heads=width // 64, **known, **size)


def deit_variant(name: str, params: int, top1: float, *, width: int, distillation: str = "none") -> Any:
    """Register a size of DeiT."""
    size = {"width": width, "attention_heads": width // 64, "distillation": distillation, "drop_path": 0.1}
    return register(name, LIKE_DEIT, params=params, **published(name, ("fb_in1k", top1), preprocessing=DEIT), **size)


AUGREG = "augreg_in21k_ft_in1k"
BASE = (("augreg2_in21k_ft_in1k", 85.096), (AUGREG, 84.532), ("orig_in21k_ft_in1k", 81.786))
MICRO = {"width": 64, "depth": 3, "patch": 4, "attention_heads": 4}


@vit_variant("vit_tiny_patch16_224", 5_717_416, (AUGREG, 75.454), width=192, patch=16)
@vit_variant("vit_small_patch16_224", 22_050_664, (AUGREG, 81.384), width=384, patch=16)
@vit_variant("vit_small_patch32_224", 22_878_952, (AUGREG, 75.994), width=384, patch=32)
@vit_variant("vit_base_patch16_224", 86_567_656, *BASE, width=768, patch=16)
@vit_variant("vit_base_patch32_224", 88_224_232, (AUGREG, 80.716), width=768, patch=32)
@vit_variant("vit_large_patch16_224", 304_326_632, (AUGREG, 85.834), width=1024, patch=16, depth=24)
@deit_variant("deit_tiny_patch16_224", 5_717_416, 72.172, width=192)
@deit_variant("deit_small_patch16_224", 22_050_664, 79.844, width=384)
@deit_variant("deit_base_patch16_224", 86_567_656, 81.992, width=768)
@deit_variant("deit_tiny_distilled_patch16_224", 5_910_800, 74.5, width=192, distillation="average")
@deit_variant("deit_small_distilled_patch16_224", 22_436_432, 81.218, width=384, distillation="average")
@deit_variant("deit_base_distilled_patch16_224", 87_338_192, 83.386, width=768, distillation="average")
# The tiny networks of the papers have 6 million parameters; these are small.
@register("vit_micro_tiny", dataclasses.replace(LIKE, **SMALL), params=158_090, **MICRO)
@register("deit_micro_tiny", dataclasses.replace(LIKE_DEIT, **SMALL), params=158_868, distillation="average", **MICRO)
def vit(x: Any, head: Head, *, trunk: Trunk = Trunk(), block: Block = Block(), dropout: float = 0.0) -> Any:
    """Build a vision transformer.

    Args:
        x: images (n, height, width, channels).
        head: turns what is pooled into logits.
        trunk: width, depth, patch, pooling, distillation and drop_path.
        block: how blocks are built; its projection_dropout also drops the sum of patches and positions.
        dropout: share of the pooled features dropped in training.

    Returns:
        The head's output, logits (n, classes), or a dictionary of "logits" and "distillation_logits".
    """
    trunk, block = trunk.check(*x.shape[1:3]), block.check(trunk.width)
    grid = (x.shape[1] // trunk.patch, x.shape[2] // trunk.patch)
    x = drop(embed(x, trunk, grid), block.projection_dropout, name="dropout")
    lean = trunk.lean and head.include_top
    for i in range(1, trunk.depth + 1):
        first = trunk.tokens if lean and i == trunk.depth else 0
        x = encoder_block(x, block, head, name=f"block{i}", rate=trunk.rate(i), first=first)
        x = head.level(x, grid) if i in trunk.marked else x
    if block.norm == "pre":
        x = layer_norm(x, block.epsilon, name="norm")
    return classify(x if lean else head.level(x, grid), head, trunk, dropout)


def embed(x: Any, trunk: Trunk, grid: tuple[int, int]) -> Any:
    """Return the tokens (n, t, width) of an image with their positions."""
    x = conv(
        x,
        trunk.width,
        trunk.patch,
        trunk.patch,
        padding="valid",
        use_bias=True,
        kernel=(1.0, "fan_in", "uniform"),
        name="patches",
    )
    x = sequence.Ungrid(name="tokens")(x)
    if trunk.distillation != "none":
        x = sequence.Token(name="distillation_token")(x)
    x = sequence.Token(name="token")(x)
    return sequence.Positions(x.shape[1], grid=grid, name="positions")(x)


def classify(x: Any, head: Head, trunk: Trunk, dropout: float) -> Any:
    """Return what the head makes of the last tokens (n, t, width), which it has marked as its last map."""
    if not head.include_top:
        return head.levels[-1]
    if trunk.pooling == "mean":
        return head(head.levels[-1], dropout, neck=pool)
    if trunk.distillation == "none":
        return head(x, dropout, neck=lambda x: token(x, 0, "pool"))
    first = drop(token(x, 0, "pool"), dropout, name="head_dropout")
    second = drop(token(x, 1, "distillation_pool"), dropout, name="distillation_dropout")
    if trunk.distillation == "separate" and head.tasks:
        return head.beside(head.logits(first), {"distillation_logits": lambda: second})
    return head.average({"logits": first, "distillation_logits": second})


def token(x: Any, index: int, name: str) -> Any:
    """Take one token (n, width) out of a sequence (n, t, width)."""
    return sequence.TakeToken(index, name=name)(x)
