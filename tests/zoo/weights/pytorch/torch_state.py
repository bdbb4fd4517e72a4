"""Reproducible values for a state dict of PyTorch and a batch of images or ids, with NumPy alone.

Shared by record_torch.py, record_transformers.py and by the tests of its references, so it must not import torch.
"""

from __future__ import annotations

import math

import numpy as np

STATE_SEED = 7
INPUT_SEED = 11


def random_state(shapes: dict[str, tuple[int, ...]], variance: float = 1.0) -> dict[str, np.ndarray]:
    """Return an array for each key of a state dict, independent of the order of `shapes`.

    `variance` is the mean of the running variances. 1 keeps the scale of a plain stack of layers; deep residual models
    need more, or their activations grow until no bias or mean has a visible effect on the logits.
    """
    seeds = {key: i for i, key in enumerate(sorted(shapes))}
    state = {key: _random_array(key, tuple(shape), seeds[key]) for key, shape in shapes.items()}
    for key, array in state.items():
        if key.endswith("running_var"):
            state[key] = np.float32(variance) * array
    return state


def random_images(height: int, width: int, batch: int = 2) -> np.ndarray:
    """Return images (batch, height, width, 3) in float32; PyTorch takes their transpose (0, 3, 1, 2)."""
    rng = np.random.Generator(np.random.PCG64([INPUT_SEED]))
    return rng.standard_normal((batch, height, width, 3)).astype(np.float32)


def random_ids(vocabulary: int, length: int = 32, batch: int = 2) -> np.ndarray:
    """Return token ids int32 (batch, length), the second half of the last text padded with 0."""
    ids = np.random.Generator(np.random.PCG64([INPUT_SEED])).integers(1, vocabulary, (batch, length)).astype("int32")
    ids[-1, length // 2 :] = 0
    return ids


def _random_array(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Fill one array: scales and variances around one, biases and means around zero, kernels with variance 2/fan_in.

    Tokens and positions of transformers are not kernels; they have the scale of the values they are added to.
    """
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    rng = np.random.Generator(np.random.PCG64([STATE_SEED, seed]))
    u = rng.random(shape, dtype=np.float32) - np.float32(0.5)
    if key.endswith("running_var") or _is_scale(key, len(shape)):
        return np.float32(1.0) + u
    if len(shape) <= 1:
        return np.float32(0.2) * u
    if key.endswith(("_token", "pos_embed")):
        return u
    fan_in = math.prod(shape[1:])
    return u * np.float32(math.sqrt(12.0 * 2.0 / fan_in))


def _is_scale(key: str, ndim: int) -> bool:
    """Return whether a key is the scale of a norm (`weight`) or a ConvNeXt layer scale (`gamma`, `layer_scale`)."""
    return (ndim == 1 and key.endswith(("weight", "gamma"))) or key.endswith("layer_scale")
