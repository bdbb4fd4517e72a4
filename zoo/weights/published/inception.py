"""Inception v3: weights of timm and keras.applications; names of torchvision, timm and keras.applications."""

from __future__ import annotations

import dataclasses

from zoo.specs.preprocessing import IMAGENET_BICUBIC, SYMMETRIC
from zoo.specs.published import APACHE, KERAS_STORE, NameMapping, PublishedWeights

# Convolutions of the blocks in torchvision and timm, in the order in which keras.applications numbers its own.
BRANCHES = {
    ("5b", "5c", "5d"): "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool",
    ("6a",): "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3",
    ("6b", "6c", "6d", "6e"): "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool",
    ("7a",): "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4",
    ("7b", "7c"): "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool",
}
STEM = {f"stem_conv{i}": name for i, name in enumerate(("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"), 1)}
ORDER = (
    *STEM,
    *(f"mixed{b}_branch{branch}" for blocks, names in BRANCHES.items() for b in blocks for branch in names.split()),
)
TORCH = NameMapping(
    rules=(
        *((ours, f"Conv2d_{theirs}.conv") for ours, theirs in STEM.items()),
        *((f"{ours}_norm", f"Conv2d_{theirs}.bn") for ours, theirs in STEM.items()),
        # The rule for norms comes first: the next one matches norms too.
        (r"mixed(\w\w)_(branch\w+)_norm", "Mixed_{0}.{1}.bn"),
        (r"mixed(\w\w)_(branch\w+)", "Mixed_{0}.{1}.conv"),
        (r"auxiliary_conv(\d)_norm", "AuxLogits.conv{0:-1}.bn"),
        (r"auxiliary_conv(\d)", "AuxLogits.conv{0:-1}.conv"),
        ("auxiliary", "AuxLogits.fc"),
        ("logits", "fc"),
    ),
    ignored=(r"AuxLogits\..*",),
)
KERAS = NameMapping(
    rules=(
        *((name, f"conv2d_{i}") for i, name in enumerate(ORDER)),
        *((f"{name}_norm", f"batch_normalization_{i}") for i, name in enumerate(ORDER)),
        ("logits", "predictions"),
    ),
    arguments={"pad_counts": False},
)
SYMMETRIC_CROPPED = dataclasses.replace(SYMMETRIC, interpolation="bicubic", crop=0.875)
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "inception_v3": (
        PublishedWeights("timm/inception_v3.gluon_in1k", 78.806, 299, IMAGENET_BICUBIC, APACHE),
        PublishedWeights("timm/inception_v3.tf_in1k", 77.862, 299, SYMMETRIC_CROPPED, APACHE),
        PublishedWeights("timm/inception_v3.tv_in1k", 77.434, 299, SYMMETRIC_CROPPED, APACHE),
        PublishedWeights(
            "keras/InceptionV3",
            77.9,
            299,
            SYMMETRIC,
            APACHE,
            md5="9a0d58056eeedaa3f26cb7ebd46da564",
            url=f"{KERAS_STORE}/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
        ),
    ),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    "inception_v3": {"torchvision": TORCH, "timm": TORCH, "keras": KERAS}
}
