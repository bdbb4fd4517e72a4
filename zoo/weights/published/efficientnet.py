"""EfficientNet: weights of timm and keras.applications; names of torchvision, timm and keras.applications."""

from __future__ import annotations

import dataclasses

from zoo.specs.preprocessing import IMAGENET_BICUBIC, SYMMETRIC, PreprocessingConfig
from zoo.specs.published import APACHE, NameMapping, PublishedWeights

BLOCK = r"stage(\d+)_block(\d+)"
TORCHVISION = NameMapping(
    rules=(
        ("stem", "features.0.0"),
        ("stem_norm", "features.0.1"),
        # The first stage has no expansion: all indices in its blocks are one lower.
        (r"stage1_block(\d+)_depthwise", "features.1.{0:-1}.block.0.0"),
        (r"stage1_block(\d+)_depthwise_norm", "features.1.{0:-1}.block.0.1"),
        (r"stage1_block(\d+)_reduce", "features.1.{0:-1}.block.1.fc1"),
        (r"stage1_block(\d+)_excite", "features.1.{0:-1}.block.1.fc2"),
        (r"stage1_block(\d+)_project", "features.1.{0:-1}.block.2.0"),
        (r"stage1_block(\d+)_project_norm", "features.1.{0:-1}.block.2.1"),
        (rf"{BLOCK}_expand", "features.{0}.{1:-1}.block.0.0"),
        (rf"{BLOCK}_expand_norm", "features.{0}.{1:-1}.block.0.1"),
        (rf"{BLOCK}_depthwise", "features.{0}.{1:-1}.block.1.0"),
        (rf"{BLOCK}_depthwise_norm", "features.{0}.{1:-1}.block.1.1"),
        (rf"{BLOCK}_reduce", "features.{0}.{1:-1}.block.2.fc1"),
        (rf"{BLOCK}_excite", "features.{0}.{1:-1}.block.2.fc2"),
        (rf"{BLOCK}_project", "features.{0}.{1:-1}.block.3.0"),
        (rf"{BLOCK}_project_norm", "features.{0}.{1:-1}.block.3.1"),
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
        (rf"{BLOCK}_expand", "blocks.{0:-1}.{1:-1}.conv_pw"),
        (rf"{BLOCK}_expand_norm", "blocks.{0:-1}.{1:-1}.bn1"),
        (rf"{BLOCK}_depthwise", "blocks.{0:-1}.{1:-1}.conv_dw"),
        (rf"{BLOCK}_depthwise_norm", "blocks.{0:-1}.{1:-1}.bn2"),
        (rf"{BLOCK}_reduce", "blocks.{0:-1}.{1:-1}.se.conv_reduce"),
        (rf"{BLOCK}_excite", "blocks.{0:-1}.{1:-1}.se.conv_expand"),
        (rf"{BLOCK}_project", "blocks.{0:-1}.{1:-1}.conv_pwl"),
        (rf"{BLOCK}_project_norm", "blocks.{0:-1}.{1:-1}.bn3"),
        ("top", "conv_head"),
        ("top_norm", "bn2"),
        ("logits", "classifier"),
    )
)
# Parts of a block in keras.applications, which letters the blocks of a stage.
KERAS_PARTS = {
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
            for ours, theirs in KERAS_PARTS.items()
        ),
        ("top", "top_conv"),
        ("top_norm", "top_bn"),
        ("logits", "predictions"),
    ),
    ignored=(r"normalization(_\d+)?/.*|rescaling.*",),
    arguments={"epsilon": 1e-3, "tf_padding": True},
)
BICUBIC_100 = dataclasses.replace(IMAGENET_BICUBIC, crop=1.0)
# AdvProp (arXiv:1911.09665) trains on pixels from -1 to 1.
ADVPROP = dataclasses.replace(SYMMETRIC, interpolation="bicubic", crop=0.875)


def _keras(name: str, top1: float, size: int, md5: str) -> PublishedWeights:
    """Return weights of keras.applications, with the scaling of pixels inside the model."""
    url = f"https://storage.googleapis.com/keras-applications/{name.lower()}.h5"
    return PublishedWeights(f"keras/{name}", top1, size, PreprocessingConfig(), md5=md5, url=url)


WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "efficientnet_b0": (
        PublishedWeights("timm/efficientnet_b0.ra_in1k", 77.694, 224, IMAGENET_BICUBIC, APACHE),
        _keras("EfficientNetB0", 77.1, 224, "902e53a9f72be733fc0bcb005b3ebbac"),
    ),
    "efficientnet_b1": (
        PublishedWeights("timm/efficientnet_b1.ft_in1k", 78.8, 256, BICUBIC_100, APACHE),
        _keras("EfficientNetB1", 79.1, 240, "1d254153d4ab51201f1646940f018540"),
    ),
    "efficientnet_b2": (
        PublishedWeights("timm/efficientnet_b2.ra_in1k", 80.61, 288, BICUBIC_100, APACHE),
        _keras("EfficientNetB2", 80.1, 260, "b15cce36ff4dcbd00b6dd88e7857a6ad"),
    ),
    "efficientnet_b3": (
        PublishedWeights("timm/efficientnet_b3.ra2_in1k", 82.242, 320, BICUBIC_100, APACHE),
        _keras("EfficientNetB3", 81.6, 300, "ffd1fdc53d0ce67064dc6a9c7960ede0"),
    ),
    "tf_efficientnet_b0": (
        PublishedWeights("timm/tf_efficientnet_b0.ns_jft_in1k", 78.67, 224, IMAGENET_BICUBIC, APACHE),
        PublishedWeights("timm/tf_efficientnet_b0.ap_in1k", 77.09, 224, ADVPROP, APACHE),
        PublishedWeights("timm/tf_efficientnet_b0.aa_in1k", 76.834, 224, IMAGENET_BICUBIC, APACHE),
        PublishedWeights("timm/tf_efficientnet_b0.in1k", 76.532, 224, IMAGENET_BICUBIC, APACHE),
    ),
}
ALL = {"torchvision": TORCHVISION, "timm": TIMM, "keras": KERAS}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    "efficientnet_b0": ALL,
    "efficientnet_b1": ALL,
    "efficientnet_b2": ALL,
    "efficientnet_b3": ALL,
    "tf_efficientnet_b0": {"timm": TIMM, "keras": KERAS},
}
