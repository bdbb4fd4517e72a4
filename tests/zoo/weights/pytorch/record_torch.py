"""Record the state-dict keys and the logits of torchvision and timm models as references for the tests.

Needs torch 2.13.0, torchvision 0.28.0 and timm 1.0.31; the tests only read its output, torch_references.json.gz. Each
model is built without trained weights, filled by `torch_state.random_state` and run in eval mode on
`torch_state.random_images`, so that NumPy alone reproduces its state and its input. Run:

    python tests/zoo/weights/pytorch/record_torch.py
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from torch_state import random_images, random_state

REFERENCES = Path(__file__).with_name("torch_references.json.gz")
SAVED_LOGITS = 16
# Height and width: small images are fast, but each model has a minimum, and timm's VGG accepts one size only.
SIZE = (96, 64)
SIZES = {
    "torchvision/alexnet": (127, 95),
    "torchvision/inception_v3": (107, 91),
    "timm/inception_v3": (107, 91),
    "timm/vgg11_bn": (224, 224),
    "timm/vgg16": (224, 224),
    # One vision transformer at its default size, one with more positions; all others have fewer.
    "timm/vit_tiny_patch16_224": (224, 224),
    "timm/deit_small_distilled_patch16_224": (272, 240),
}
# Published checkpoints of these hold the auxiliary classifiers too.
WITH_AUXILIARY = {"aux_logits": True, "transform_input": False, "init_weights": False}
OPTIONS = {"torchvision/googlenet": WITH_AUXILIARY, "torchvision/inception_v3": WITH_AUXILIARY}
# Positions are resampled for the image at hand.
TRANSFORMERS = ("vit_", "deit_")
# Without larger variances, activations grow from one residual block to the next until biases no longer count.
RESIDUAL = ("resnet", "resnext", "wide_resnet")
RESIDUAL_VARIANCE = 3.0
NAMES = {
    "torchvision": """
        alexnet vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn
        resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d wide_resnet50_2 googlenet inception_v3
        densenet121 densenet161 densenet169 densenet201 mobilenet_v2 efficientnet_b0 convnext_tiny
    """,
    "timm": """
        resnet18 resnet50 resnet50d resnext50_32x4d wide_resnet50_2 resnetv2_50 resnetv2_101 vgg11_bn vgg16
        densenet121 inception_v3 mobilenetv2_100 efficientnet_b0 tf_efficientnet_b0 convnext_tiny
        vit_tiny_patch16_224 vit_small_patch16_224 vit_small_patch32_224 vit_base_patch16_224 vit_base_patch32_224
        vit_large_patch16_224 deit_small_patch16_224 deit_small_distilled_patch16_224
    """,
}
MODELS = [f"{library}/{name}" for library, names in NAMES.items() for name in names.split()]


def build(model_id: str) -> torch.nn.Module:
    """Build "library/name" without trained weights, in eval mode."""
    library, name = model_id.split("/")
    if library == "timm":
        options = {"dynamic_img_size": True} if name.startswith(TRANSFORMERS) else {}
        return timm.create_model(name, pretrained=False, **options).eval()
    return torchvision.models.get_model(name, weights=None, **OPTIONS.get(model_id, {})).eval()


def versions(library: str) -> dict[str, str]:
    """Return the releases that an entry comes from, without build tags."""
    modules = {"torch": torch, library: {"timm": timm, "torchvision": torchvision}[library]}
    return {name: module.__version__.partition("+")[0] for name, module in modules.items()}


def short(value: float) -> float:
    """Round a float32 to the nine digits that identify it."""
    return float(f"{value:.9g}")


def record(model_id: str) -> dict[str, Any]:
    """Build, fill and run one model, and return its entry."""
    library, name = model_id.split("/")
    size, variance = SIZES.get(model_id, SIZE), RESIDUAL_VARIANCE if name.startswith(RESIDUAL) else 1.0
    model = build(model_id)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    state = random_state(shapes, variance)
    model.load_state_dict({key: torch.from_numpy(np.asarray(array)) for key, array in state.items()}, strict=True)
    images = np.ascontiguousarray(random_images(*size).transpose(0, 3, 1, 2))
    with torch.inference_mode():
        logits = model(torch.from_numpy(images)).numpy()
    return {
        "keys": {key: list(shape) for key, shape in shapes.items()},
        "logits": [[short(value) for value in row[:SAVED_LOGITS]] for row in logits],
        "logits_max": short(np.abs(logits).max()),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "size": list(size),
        "variance": variance,
        "versions": versions(library),
    }


def check(entry: dict[str, Any]) -> list[str]:
    """Return the defects of an entry as a reference: values out of range, or two images with nearly equal logits."""
    first, second = np.asarray(entry["logits"])
    problems = []
    if not (np.isfinite(first).all() and np.isfinite(second).all() and 1e-2 <= entry["logits_max"] <= 1e6):
        problems.append(f"largest logit {entry['logits_max']:g}")
    if not np.abs(first - second).max() > 1e-3 * np.abs(first).max():
        problems.append(f"the images differ by {np.abs(first - second).max():g}")
    return problems


def main() -> int:
    """Record the given models, all by default; return 1 and write nothing if one is a poor reference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="LIBRARY/NAME", help="by default all of them")
    chosen = parser.parse_args().models or MODELS
    entries = json.loads(gzip.decompress(REFERENCES.read_bytes())) if REFERENCES.exists() else {}
    poor = False
    for model_id in chosen:
        entry = entries[model_id] = record(model_id)
        problems = check(entry)
        poor |= bool(problems)
        print(model_id, f"{entry['params']:,} parameters, largest logit {entry['logits_max']:g}", *problems, sep=": ")
    if not poor:
        # Keys keep the order of the state dict; the file is reproducible.
        text = json.dumps({model_id: entries[model_id] for model_id in sorted(entries)}, separators=(",", ":"))
        REFERENCES.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    return int(poor)


if __name__ == "__main__":
    raise SystemExit(main())
