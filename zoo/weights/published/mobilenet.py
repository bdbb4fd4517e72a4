"""MobileNetV2: weights of timm and keras.applications; names of torchvision, timm and keras.applications."""

from __future__ import annotations

from zoo.specs.preprocessing import IMAGENET_BICUBIC, SYMMETRIC
from zoo.specs.published import APACHE, KERAS_STORE, NameMapping, PublishedWeights

BLOCK = r"stage(\d+)_block(\d+)"
# Blocks in each stage; torchvision and keras.applications number the blocks of all stages in one sequence.
DEPTHS = (1, 2, 3, 4, 3, 3, 1)
BLOCKS = [f"stage{i}_block{j}" for i, depth in enumerate(DEPTHS, start=1) for j in range(1, depth + 1)]
# Parts of a block in torchvision.
TORCHVISION_PARTS = {
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
            for ours, theirs in TORCHVISION_PARTS.items()
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
        (rf"{BLOCK}_expand", "blocks.{0:-1}.{1:-1}.conv_pw"),
        (rf"{BLOCK}_expand_norm", "blocks.{0:-1}.{1:-1}.bn1"),
        (rf"{BLOCK}_depthwise", "blocks.{0:-1}.{1:-1}.conv_dw"),
        (rf"{BLOCK}_depthwise_norm", "blocks.{0:-1}.{1:-1}.bn2"),
        (rf"{BLOCK}_project", "blocks.{0:-1}.{1:-1}.conv_pwl"),
        (rf"{BLOCK}_project_norm", "blocks.{0:-1}.{1:-1}.bn3"),
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
KERAS_FILE = f"{KERAS_STORE}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "mobilenet_v2": (
        PublishedWeights("timm/mobilenetv2_100.ra_in1k", 72.976, 224, IMAGENET_BICUBIC, APACHE),
        # Keras states no digest of this file.
        PublishedWeights("keras/MobileNetV2", 71.3, 224, SYMMETRIC, APACHE, url=KERAS_FILE),
    ),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    "mobilenet_v2": {"torchvision": TORCHVISION, "timm": TIMM, "keras": KERAS}
}
