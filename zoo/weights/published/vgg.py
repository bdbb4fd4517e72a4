"""VGG: weights and names of torchvision, timm and keras.applications."""

from __future__ import annotations

from zoo.specs.preprocessing import CAFFE
from zoo.specs.published import BSD, CC_BY, KERAS_STORE, NameMapping, PublishedWeights

# Convolutions in each stage.
DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
KERAS = NameMapping(
    rules=(("stage(.)_conv(.)", "block{0}_conv{1}"), ("fc([67])", "fc{0:-5}"), ("logits", "predictions"))
)


def _torch_features(depths: tuple[int, ...], batch_norm: bool) -> tuple[tuple[str, str], ...]:
    """Return rules for the convolutions; torchvision and timm number every layer, with pooling and ReLU."""
    rules, number = [], 0
    for stage, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            rules.append((f"stage{stage}_conv{i}", f"features.{number}"))
            rules.append((f"stage{stage}_conv{i}_norm", f"features.{number + 1}"))
            number += 3 if batch_norm else 2
        number += 1
    return tuple(rules)


def _name_mappings(depths: tuple[int, ...], batch_norm: bool) -> dict[str, NameMapping]:
    """Return the names of each library."""
    features = _torch_features(depths, batch_norm)
    torchvision = (("fc6", "classifier.0"), ("fc7", "classifier.3"), ("logits", "classifier.6"))
    timm = (("fc([67])", "pre_logits.fc{0:-5}"), ("logits", "head.fc"))
    return {
        "torchvision": NameMapping((*features, *torchvision)),
        "timm": NameMapping((*features, *timm)),
        "keras": KERAS,
    }


def _keras(name: str, md5: str) -> PublishedWeights:
    file = f"{name.lower()}/{name.lower()}_weights_tf_dim_ordering_tf_kernels.h5"
    return PublishedWeights(
        f"keras/{name}", 71.3, preprocessing=CAFFE, license=CC_BY, md5=md5, url=f"{KERAS_STORE}/{file}"
    )


KERAS_VGG16 = _keras("VGG16", "64373286793e3c8b2b4e3219cbf3544b")
KERAS_VGG19 = _keras("VGG19", "cbe5617147190e668d6c5d5026f83318")
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "vgg11": (PublishedWeights("timm/vgg11.tv_in1k", 69.022, license=BSD),),
    "vgg13": (PublishedWeights("timm/vgg13.tv_in1k", 69.932, license=BSD),),
    "vgg16": (PublishedWeights("timm/vgg16.tv_in1k", 71.592, license=BSD), KERAS_VGG16),
    "vgg19": (PublishedWeights("timm/vgg19.tv_in1k", 72.378, license=BSD), KERAS_VGG19),
    "vgg11_bn": (PublishedWeights("timm/vgg11_bn.tv_in1k", 70.382, license=BSD),),
    "vgg13_bn": (PublishedWeights("timm/vgg13_bn.tv_in1k", 71.588, license=BSD),),
    "vgg16_bn": (PublishedWeights("timm/vgg16_bn.tv_in1k", 73.370, license=BSD),),
    "vgg19_bn": (PublishedWeights("timm/vgg19_bn.tv_in1k", 74.216, license=BSD),),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {
    name + suffix: _name_mappings(depths, bool(suffix)) for name, depths in DEPTHS.items() for suffix in ("", "_bn")
}
