"""DenseNet: weights and names of torchvision, timm and keras.applications."""

from __future__ import annotations

import dataclasses

from zoo.specs.preprocessing import IMAGENET_BICUBIC
from zoo.specs.published import APACHE, BSD, KERAS_STORE, NameMapping, PublishedWeights

TORCH = NameMapping(
    rules=(
        ("stem", "features.conv0"),
        ("stem_norm", "features.norm0"),
        (r"stage(\d)_layer(\d+)_conv(\d)", "features.denseblock{0}.denselayer{1}.conv{2}"),
        (r"stage(\d)_layer(\d+)_conv(\d)_norm", "features.denseblock{0}.denselayer{1}.norm{2}"),
        (r"transition(\d)", "features.transition{0}.conv"),
        (r"transition(\d)_norm", "features.transition{0}.norm"),
        ("final_norm", "features.norm5"),
        ("logits", "classifier"),
    )
)
KERAS = NameMapping(
    rules=(
        ("stem", "conv1_conv"),
        ("stem_norm", "conv1_bn"),
        (r"stage(\d)_layer(\d+)_conv(\d)", "conv{0:+1}_block{1}_{2}_conv"),
        (r"stage(\d)_layer(\d+)_conv(\d)_norm", "conv{0:+1}_block{1}_{2:-1}_bn"),
        (r"transition(\d)", "pool{0:+1}_conv"),
        (r"transition(\d)_norm", "pool{0:+1}_bn"),
        ("final_norm", "bn"),
        ("logits", "predictions"),
    ),
    arguments={"epsilon": 1.001e-5},
)


def _tv(name: str, top1: float) -> PublishedWeights:
    """Return torchvision's weights as timm has them."""
    return PublishedWeights(f"timm/{name}.tv_in1k", top1, preprocessing=IMAGENET_BICUBIC, license=APACHE)


def _keras(name: str, top1: float, md5: str) -> PublishedWeights:
    url = f"{KERAS_STORE}/densenet/{name.lower()}_weights_tf_dim_ordering_tf_kernels.h5"
    return PublishedWeights(f"keras/{name}", top1, license=BSD, md5=md5, url=url)


BICUBIC_95 = dataclasses.replace(IMAGENET_BICUBIC, crop=0.95)
DENSENET121_RA = PublishedWeights("timm/densenet121.ra_in1k", 76.5, 288, BICUBIC_95, APACHE)

WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "densenet121": (
        DENSENET121_RA,
        _tv("densenet121", 74.764),
        _keras("DenseNet121", 75.0, "9d60b8095a5708f2dcce2bca79d332c7"),
    ),
    "densenet161": (_tv("densenet161", 77.358),),
    "densenet169": (_tv("densenet169", 75.9), _keras("DenseNet169", 76.2, "d699b8f76981ab1b30698df4c175e90b")),
    "densenet201": (_tv("densenet201", 77.286), _keras("DenseNet201", 77.3, "1ceb130c1ea1b78c3bf6114dbdfd8807")),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    name: {"torchvision": TORCH, "timm": TORCH, "keras": KERAS} for name in WEIGHTS
}
