"""ViT (Dosovitskiy et al. 2020, arXiv:2010.11929) and DeiT (Touvron et al. 2020, arXiv:2012.12877).

An image is cut into patches; each patch is projected to a token; a transformer encoder processes the tokens. The tiny
and small sizes are those of DeiT, which Steiner et al. 2021 (arXiv:2106.10270) also trained as ViT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from zoo.common.errors import BadOption
from zoo.layers.attention import Block, encoder_block, layer_norm
from zoo.layers.blocks import check_counts, check_rate, conv, drop
from zoo.layers.heads import Head, pool
from zoo.layers.lazy import sequence
from zoo.specs.preprocessing import SYMMETRIC
from zoo.specs.registry import ModelSpec, register
from zoo.weights.published.vit import DEIT_PIXELS, NAME_MAPPINGS, VIT_PIXELS, WEIGHTS

VIT = ModelSpec(
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=16,
    paper="Dosovitskiy et al. 2020, arXiv:2010.11929",
    tags=("image", "attention", "residual"),
    preprocessing=VIT_PIXELS,
)
VIT_32 = dataclasses.replace(VIT, min_size=32)
DEIT = dataclasses.replace(VIT, paper="Touvron et al. 2020, arXiv:2012.12877", preprocessing=DEIT_PIXELS)
SMALL = {
    "input_shape": (32, 32, 3),
    "classes": 10,
    "min_size": 4,
    "tags": (*VIT.tags, "small"),
    "preprocessing": SYMMETRIC,
}


@dataclasses.dataclass(frozen=True)
class Trunk:
    """Options of the patches, the tokens and the stack of blocks.

    Args:
        width: channels of a token.
        depth: number of blocks.
        patch: height and width of a patch in pixels; pixels after the last whole patch are cropped.
        pooling: "class" for the class token, "mean" for the average of the patch tokens.
        distillation: "average" adds a distillation token, trained by a teacher, and averages the logits of both
            classifiers (arXiv:2012.12877, section 4); "separate" returns the logits of each, for training; "none".
        drop_path: probability of dropping a branch of the last block for an example in training; it grows linearly
            from 0 at the first block.
        lean: compute only the pooled tokens in the last block; this saves a fifteenth of the time of training and
            inference and changes no logit, but leaves no last feature map.
    """

    width: int = 64
    depth: int = 12
    patch: int = 16
    pooling: str = "class"
    distillation: str = "none"
    drop_path: float = 0.0
    lean: bool = False

    def check(self, height: int, width: int) -> Trunk:
        """Return the trunk, or raise BadOption if an image of this size does not fit it."""
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
        """Return the drop_path rate of a block, counted from 1."""
        return self.drop_path * (block - 1) / max(1, self.depth - 1)

    @property
    def tokens(self) -> int:
        """Number of learned tokens before the patch tokens."""
        return 1 if self.distillation == "none" else 2

    @property
    def marked(self) -> set[int]:
        """Blocks that give a feature map: those at a quarter, a half and three quarters of the depth."""
        return {self.depth * i // 4 for i in (1, 2, 3)}


MICRO = {"width": 64, "depth": 3, "patch": 4, "attention_heads": 4}


def imagenet(name: str, like: ModelSpec, *, width: int, **options: Any) -> Callable[..., Any]:
    """Register a variant for ImageNet with its published weights; each attention head has 64 channels."""
    published = {"weights": WEIGHTS[name], "name_mappings": NAME_MAPPINGS[name]}
    return register(name, like, width=width, attention_heads=width // 64, **published, **options)


def deit(name: str, *, distillation: str = "none", **options: Any) -> Callable[..., Any]:
    """Register a variant of DeiT."""
    return imagenet(name, DEIT, distillation=distillation, drop_path=0.1, **options)


@imagenet("vit_tiny_patch16_224", VIT, params=5_717_416, width=192, patch=16)
@imagenet("vit_small_patch16_224", VIT, params=22_050_664, width=384, patch=16)
@imagenet("vit_small_patch32_224", VIT_32, params=22_878_952, width=384, patch=32)
@imagenet("vit_base_patch16_224", VIT, params=86_567_656, width=768, patch=16)
@imagenet("vit_base_patch32_224", VIT_32, params=88_224_232, width=768, patch=32)
@imagenet("vit_large_patch16_224", VIT, params=304_326_632, width=1024, patch=16, depth=24)
@deit("deit_tiny_patch16_224", params=5_717_416, width=192)
@deit("deit_small_patch16_224", params=22_050_664, width=384)
@deit("deit_base_patch16_224", params=86_567_656, width=768)
@deit("deit_tiny_distilled_patch16_224", params=5_910_800, width=192, distillation="average")
@deit("deit_small_distilled_patch16_224", params=22_436_432, width=384, distillation="average")
@deit("deit_base_distilled_patch16_224", params=87_338_192, width=768, distillation="average")
# The tiny variants of the papers have 6 million parameters; these are for tests and small images.
@register("vit_micro_tiny", dataclasses.replace(VIT, **SMALL), params=158_090, **MICRO)
@register("deit_micro_tiny", dataclasses.replace(DEIT, **SMALL), params=158_868, distillation="average", **MICRO)
def vit(x: Any, head: Head, *, trunk: Trunk = Trunk(), block: Block = Block(), dropout: float = 0.0) -> Any:
    """Build a vision transformer.

    Args:
        x: images (n, height, width, channels).
        head: computes logits from the pooled tokens.
        trunk: width, depth, patch, pooling, distillation and drop_path.
        block: options of the blocks; its projection_dropout also applies to the sum of patches and positions.
        dropout: fraction of the pooled features dropped in training.

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
    """Return the tokens (n, t, width) of an image, with positions added."""
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
    """Return the head's output for the last tokens (n, t, width), which are also its last feature map."""
    if not head.include_top:
        return head.levels[-1]
    if trunk.pooling == "mean":
        return head(head.levels[-1], dropout, neck=pool)
    if trunk.distillation == "none":
        return head(x, dropout, neck=lambda x: token(x, 0, "pool"))
    first = drop(token(x, 0, "pool"), dropout, name="head_dropout")
    second = drop(token(x, 1, "distillation_pool"), dropout, name="distillation_dropout")
    if trunk.distillation == "separate" and head.tasks:
        return head.with_auxiliary(head.logits(first), {"distillation_logits": lambda: second})
    return head.average({"logits": first, "distillation_logits": second})


def token(x: Any, index: int, name: str) -> Any:
    """Return one token (n, width) of a sequence (n, t, width)."""
    return sequence.TakeToken(index, name=name)(x)
