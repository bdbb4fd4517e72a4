"""AlexNet: weights and names of torchvision."""

from __future__ import annotations

from zoo.specs.published import NameMapping, PublishedWeights

TORCHVISION = NameMapping(
    rules=(
        ("conv1", "features.0"),
        ("conv2", "features.3"),
        ("conv3", "features.6"),
        ("conv4", "features.8"),
        ("conv5", "features.10"),
        ("fc6", "classifier.1"),
        ("fc7", "classifier.4"),
        ("logits", "classifier.6"),
    )
)
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "alexnet_owt": (
        PublishedWeights(
            "torchvision/AlexNet_Weights.IMAGENET1K_V1",
            56.522,
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        ),
    ),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {"alexnet_owt": {"torchvision": TORCHVISION}}
