"""GoogLeNet: weights and names of torchvision."""

from __future__ import annotations

import dataclasses

from zoo.specs.preprocessing import SYMMETRIC
from zoo.specs.published import NameMapping, PublishedWeights

# Our convolutions and those of torchvision; each has a norm.
CONVOLUTIONS = (
    (r"(conv\d)", "{0}"),
    (r"(inception\d\w)_branch1", "{0}.branch1"),
    (r"(inception\d\w)_branch([23])_conv(\d)", "{0}.branch{1}.{2:-1}"),
    (r"(inception\d\w)_branch4", "{0}.branch4.1"),
    (r"auxiliary(\d)_conv", "aux{0}.conv"),
)
TORCHVISION = NameMapping(
    rules=(
        *((ours, f"{theirs}.conv") for ours, theirs in CONVOLUTIONS),
        *((f"{ours}_norm", f"{theirs}.bn") for ours, theirs in CONVOLUTIONS),
        (r"auxiliary(\d)_dense", "aux{0}.fc1"),
        (r"auxiliary(\d)", "aux{0}.fc2"),
        ("logits", "fc"),
    ),
    ignored=(r"aux\d\..*",),
)
CROPPED = dataclasses.replace(SYMMETRIC, crop=0.875)
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "googlenet": (
        PublishedWeights(
            "torchvision/GoogLeNet_Weights.IMAGENET1K_V1",
            69.778,
            preprocessing=CROPPED,
            url="https://download.pytorch.org/models/googlenet-1378be20.pth",
        ),
    ),
}
NAME_MAPPINGS: dict[str, dict[str, NameMapping]] = {"googlenet": {"torchvision": TORCHVISION}}
