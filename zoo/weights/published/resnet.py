"""ResNet, ResNeXt, Wide ResNet and ResNet-D: weights and names of torchvision, timm and keras.applications."""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.specs.preprocessing import CAFFE, IMAGENET, IMAGENET_BICUBIC
from zoo.specs.published import APACHE, BSD, KERAS_STORE, MIT, TORCHVISION_RESULTS, NameMapping, PublishedWeights

BLOCK = r"stage(\d+)_block(\d+)"


def _torch(stem: tuple[tuple[str, str], ...], shortcut: int = 0) -> NameMapping:
    """Return the names of torchvision and timm; `shortcut` is the index of the convolution in a shortcut."""
    return NameMapping(
        rules=(
            *stem,
            (rf"{BLOCK}_conv(\d)", "layer{0}.{1:-1}.conv{2}"),
            (rf"{BLOCK}_conv(\d)_norm", "layer{0}.{1:-1}.bn{2}"),
            (rf"{BLOCK}_shortcut", f"layer{{0}}.{{1:-1}}.downsample.{shortcut}"),
            (rf"{BLOCK}_shortcut_norm", f"layer{{0}}.{{1:-1}}.downsample.{shortcut + 1}"),
            ("logits", "fc"),
        )
    )


TORCH = _torch((("stem", "conv1"), ("stem_norm", "bn1")))
RESNET_D = _torch(
    (
        ("stem1", "conv1.0"),
        ("stem1_norm", "conv1.1"),
        ("stem2", "conv1.3"),
        ("stem2_norm", "conv1.4"),
        ("stem3", "conv1.6"),
        ("stem3_norm", "bn1"),
    ),
    shortcut=1,
)
KERAS = NameMapping(
    rules=(
        ("stem", "conv1_conv"),
        ("stem_norm", "conv1_bn"),
        (rf"{BLOCK}_conv(\d)", "conv{0:+1}_block{1}_{2}_conv"),
        (rf"{BLOCK}_conv(\d)_norm", "conv{0:+1}_block{1}_{2}_bn"),
        (rf"{BLOCK}_shortcut", "conv{0:+1}_block{1}_0_conv"),
        (rf"{BLOCK}_shortcut_norm", "conv{0:+1}_block{1}_0_bn"),
        ("logits", "predictions"),
    ),
    arguments={"epsilon": 1.001e-5},
)

BICUBIC_95 = dataclasses.replace(IMAGENET_BICUBIC, crop=0.95)
BICUBIC_100 = dataclasses.replace(IMAGENET_BICUBIC, crop=1.0)
# timm's evaluation of each training recipe in a checkpoint's tag; "a1" is arXiv:2110.00476.
RECIPES: dict[str, dict[str, Any]] = {
    "a1": {"size": 288, "preprocessing": BICUBIC_100, "license": APACHE},
    "a1h": {"size": 288, "preprocessing": BICUBIC_100, "license": APACHE},
    "ra2": {"size": 288, "preprocessing": BICUBIC_95, "license": APACHE},
    "racm": {"size": 288, "preprocessing": BICUBIC_95, "license": APACHE},
    "tv": {"license": BSD},
    "tv2": {"preprocessing": dataclasses.replace(IMAGENET, crop=0.965), "license": BSD},
}


def _timm(name: str, **top1: float) -> tuple[PublishedWeights, ...]:
    """Return timm's checkpoints of a model, top-1 accuracy by recipe."""
    return tuple(PublishedWeights(f"timm/{name}.{recipe}_in1k", v, **RECIPES[recipe]) for recipe, v in top1.items())


def _keras(name: str, top1: float, md5: str, terms: str | None = None) -> PublishedWeights:
    url = f"{KERAS_STORE}/resnet/{name.lower()}_weights_tf_dim_ordering_tf_kernels.h5"
    return PublishedWeights(f"keras/{name}", top1, preprocessing=CAFFE, license=terms, md5=md5, url=url)


# timm's results do not list this checkpoint.
RESNET34_TV = PublishedWeights("timm/resnet34.tv_in1k", 73.314, license=BSD, reference=TORCHVISION_RESULTS)
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "resnet18": _timm("resnet18", a1=73.158, tv=69.760),
    "resnet34": (*_timm("resnet34", a1=77.918), RESNET34_TV),
    "resnet50": _timm("resnet50", a1=81.214, tv2=80.850, tv=76.130),
    "resnet101": _timm("resnet101", a1h=82.778, tv2=81.890, tv=77.376),
    "resnet152": _timm("resnet152", a1h=83.450, tv2=82.288, tv=78.322),
    "resnext50_32x4d": _timm("resnext50_32x4d", a1h=82.014, tv2=81.182, tv=77.618),
    "wide_resnet50_2": _timm("wide_resnet50_2", racm=82.280, tv2=81.606, tv=78.480),
    "resnet50d": _timm("resnet50d", a1=81.450, ra2=81.356),
    "resnet50_v1": (_keras("ResNet50", 74.9, "2cb95161c43110f7111970584f804107", MIT),),
    "resnet101_v1": (_keras("ResNet101", 76.4, "f1aeb4b969a6efcfb50fad2f0c20cfc5"),),
    "resnet152_v1": (_keras("ResNet152", 76.6, "100835be76be38e30d865e96f2aaae62"),),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    "resnet18": {"torchvision": TORCH, "timm": TORCH},
    "resnet34": {"torchvision": TORCH, "timm": TORCH},
    "resnet50": {"torchvision": TORCH, "timm": TORCH},
    "resnet101": {"torchvision": TORCH, "timm": TORCH},
    "resnet152": {"torchvision": TORCH, "timm": TORCH},
    "resnext50_32x4d": {"torchvision": TORCH, "timm": TORCH},
    "wide_resnet50_2": {"torchvision": TORCH, "timm": TORCH},
    "resnet50d": {"timm": RESNET_D},
    "resnet50_v1": {"keras": KERAS},
    "resnet101_v1": {"keras": KERAS},
    "resnet152_v1": {"keras": KERAS},
}
