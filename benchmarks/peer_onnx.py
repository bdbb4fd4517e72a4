"""Export a timm model to ONNX with PyTorch: `peer_onnx.py MODEL PATH [PIXELS]`; needs torch, timm and onnx."""

from __future__ import annotations

import json
import sys
import time


def main(model: str, path: str, pixels: str = "") -> None:
    """Export with random weights and batch 1; print the seconds."""
    import timm
    import torch

    module = timm.create_model(model, pretrained=False).eval()
    channels, *size = module.default_cfg["input_size"]
    image = torch.zeros(1, channels, *([int(pixels)] * 2 if pixels else size))
    start = time.perf_counter()
    torch.onnx.export(module, (image,), path, opset_version=17, dynamo=False)
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main(*sys.argv[1:])
