"""A zoo of Keras models: list, describe and build them, and load or save their weights.

import zoo
model = zoo.get("resnet50")             # a keras.Model with random weights
zoo.list_models("resnet*")              # without importing TensorFlow
zoo.spec("resnet50").params
zoo.features("resnet50", levels=(1, 2, 3, 4))   # a keras.Model of feature maps
zoo.generate(zoo.get("transformer_base"), ids)  # token ids (n, 128) generated from token ids (n, 128)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.common.errors import (
    BadOption,
    DataError,
    DuplicateName,
    ExportError,
    MissingDependency,
    ParityError,
    RunError,
    TrainingError,
    UnknownName,
    UnsupportedExport,
    ZooError,
)
from zoo.layers.heads import MultiClass, MultiLabel, Regression
from zoo.layers.registration import register_with_keras
from zoo.specs.counts import set_counter
from zoo.specs.info import ModelInfo
from zoo.specs.listing import list_families, list_models
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.published import NameMapping, PublishedWeights
from zoo.specs.registry import ModelSpec
from zoo.specs.registry import models as _models
from zoo.specs.registry import register as register_model
from zoo.specs.text import TextConfig

# Read when TensorFlow is imported, which turns oneDNN on by itself on the newest processors only. With AVX2 alone,
# ResNet-50 trains 1.6 times as fast with it, and grouped convolutions have all their kernels.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if TYPE_CHECKING:
    import keras
    import numpy as np

__all__ = [
    "BadOption",
    "DataError",
    "DuplicateName",
    "ExportError",
    "MissingDependency",
    "ModelInfo",
    "ModelSpec",
    "MultiClass",
    "MultiLabel",
    "NameMapping",
    "ParityError",
    "PreprocessingConfig",
    "PublishedWeights",
    "Regression",
    "RunError",
    "TextConfig",
    "TrainingError",
    "UnknownName",
    "UnsupportedExport",
    "ZooError",
    "__version__",
    "embed",
    "features",
    "generate",
    "get",
    "info",
    "list_families",
    "list_models",
    "load_model",
    "preprocessing",
    "register_model",
    "save_weights",
    "spec",
    "tokenize",
]


def _count(spec: ModelSpec) -> dict[str, Any]:
    """Return the counts of a plug-in's model, which has no recorded ones: it is built once."""
    from zoo.counts import cached_count

    return cached_count(spec)


set_counter(_count)
register_with_keras()


def __getattr__(name: str) -> str:
    """Return `__version__`, which is looked up on first use."""
    if name != "__version__":
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("keras-zoo")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def get(  # noqa: PLR0913 - explicit arguments document the function
    model: str | os.PathLike[str],
    /,
    *,
    name: str | None = None,
    classes: int | None = None,
    heads: Any = None,
    input_shape: tuple[int, ...] | None = None,
    include_top: bool = True,
    weights: Any = None,
    classifier_activation: str | None = None,
    dtype: str | None = None,
    preprocessing: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> keras.Model:
    """Build a registered model.

    Args:
        model: a name of `zoo.list_models()`; or one that has its weights: timm's "<model>.<tag>",
            "hf://<user>/<repository>" or the path of a local folder with the same files.
        name: the keras.Model's name; `model` by default.
        classes: number of logits; 0 returns the pooled features; the spec's number by default.
        heads: instead of classes, a `MultiClass`, `MultiLabel` or `Regression`, or a dictionary of several over one
            trunk, as in `{"species": 10, "age": Regression()}`; the model then returns a dictionary.
        input_shape: shape of one input, (height, width, channels) or (features,); the spec's by default.
        include_top: False returns the feature map (n, h, w, c) instead of logits.
        weights: None for random weights; a path (`.keras`, `.weights.h5`, or `.safetensors` with the zoo's, timm's or
            torchvision's names, or transformers'); a keras.Model of keras.applications or of this zoo; "imagenet" (the
            first of `zoo.spec(model).weights`); "keras" (keras.applications' file); "timm/<model>.<tag>" (the Hugging
            Face hub); "hf://<user>/<repository>" or a local folder with a `config.json` of `zoo push`, of timm or of
            transformers, which has its tokenizer too. On the hub, "@<revision>" at the end is a branch, a tag or a
            commit. Published weights leave a head of another size random; a file must have every weight except those
            of heads. For another number of input channels the first convolution's kernel is summed (for one channel) or
            tiled and scaled.
        classifier_activation: a Keras activation after the logits, such as "softmax"; None returns logits.
        dtype: Keras dtype policy of the layers, such as "mixed_bfloat16"; the global policy by default. Logits are
            always float32.
        preprocessing: preprocessing that the weights expect, for files that cannot say it: a `PreprocessingConfig`,
            the name of a preset ("imagenet", "tf", "caffe", "raw", "unit"), JSON text or a dictionary; `zoo.info`
            returns what is known of a model.
        cache_dir: folder for downloads; by default that of the hub's client ($HF_HUB_CACHE, $HF_HOME) and of Keras
            ($KERAS_HOME).
        **options: options of the model family, such as `dropout=0.2` or `activation="silu"`; `zoo show MODEL` lists
            them.

    Returns:
        A functional keras.Model from one input (n, *input_shape) of preprocessed values, named "image" or
        "features", to logits (n, classes).

    Raises:
        UnknownName: no model has this name.
        BadOption: the model has no such option, a value is out of range, the weights do not fit, or they are not for
            commercial use and ZOO_ALLOW_NONCOMMERCIAL=1 does not accept that.
        DataError: the weights cannot be downloaded or read.
    """
    from zoo.build import Request, build

    head = (classes, heads, input_shape, include_top, classifier_activation)
    request = Request(*head, dtype, name, preprocessing, cache_dir)
    return build(model, request, weights, options)


def features(  # noqa: PLR0913 - as in `get`
    model: str | os.PathLike[str],
    /,
    levels: Sequence[int] | None = None,
    *,
    name: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: Any = None,
    dtype: str | None = None,
    preprocessing: Any = None,
    kind: str = "maps",
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> keras.Model:
    """Build a model that returns feature maps or attention weights.

    Args:
        model: as for `zoo.get`.
        levels: indices into `zoo.spec(model).feature_info`, or of the attention layers in block order; negative
            indices count from the end; all by default.
        name: the keras.Model's name; "<model>_features" by default.
        input_shape: as for `zoo.get`.
        weights: as for `zoo.get`.
        dtype: as for `zoo.get`.
        preprocessing: as for `zoo.get`.
        kind: "maps" for the feature maps of an image model, or "attention" for attention weights.
        cache_dir: as for `zoo.get`.
        **options: options of the model family.

    Returns:
        A functional keras.Model from inputs (n, *input_shape) to a list of feature maps (n, h, w, c), or of attention
        weights (n, heads, queries, keys) that sum to 1 over the keys; a single output is not in a list.

    Raises:
        UnknownName: no model has this name.
        BadOption: the model has no such level or option, or the weights do not fit.
    """
    from zoo.build import Request, build_features

    request = Request(input_shape=input_shape, dtype=dtype, name=name, preprocessing=preprocessing, cache_dir=cache_dir)
    return build_features(model, levels, request, weights, options, kind)


def generate(model: keras.Model, source: np.ndarray, beams: int = 1, penalty: float = 0.6) -> np.ndarray:
    """Generate a target sequence for each source sequence with a sequence-to-sequence model.

    Args:
        model: a model of `zoo.get` with the task "generate", or one loaded from its `.keras` file.
        source: token ids (n, source length), padded with 0 at the end.
        beams: number of beams of the beam search; 1 decodes greedily.
        penalty: exponent of the length penalty (Wu et al. 2016, arXiv:1609.08144); 0 prefers short sequences.

    Returns:
        Token ids (n, target length), int32: the sequence with its end token, then 0.

    Raises:
        BadOption: the model is not sequence-to-sequence, or the ids or options are out of range.
    """
    from zoo.decoding import generate

    return generate(model, source, beams, penalty)


def info(model: keras.Model) -> ModelInfo | None:
    """Return what is known of a model: its options, and the preprocessing, labels and license of its weights.

    Args:
        model: a model of `zoo.get` or `zoo.features`, one loaded from its file, or one with such a model first inside.

    Returns:
        The info; None if the model has none.
    """
    from zoo.layers.saving import info_of

    return info_of(model)


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Open a whole Keras model: a `.keras` file, or an `.h5` file of Keras 3 or Keras 2.

    No code of the file is executed: a file with a Lambda layer is refused.

    Args:
        path: the file.

    Returns:
        The keras.Model, not compiled; one of the zoo has its info.

    Raises:
        BadOption: the file has no model that Keras can open, or has code in it.
    """
    from zoo.weights.keras_files import load_model

    return load_model(path)


def preprocessing(model: keras.Model) -> PreprocessingConfig | None:
    """Return the preprocessing that the weights of a model expect; None if it is not known."""
    known = info(model)
    return known and known.preprocessing


def save_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Save a model's weights as safetensors with keys "layer/variable"; `zoo.get(name, weights=path)` loads them.

    Args:
        model: a model of this zoo.
        path: a file ending in `.safetensors`, written atomically.

    Raises:
        BadOption: the path has another ending.
    """
    from zoo.weights.safetensors_file import write_weights

    write_weights(model, Path(path))


def embed(model: keras.Model, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
    """Return the vectors of texts.

    Args:
        model: a model of the task "embed", or the features (classes=0) of another text model, with weights that know
            their tokenization; see `zoo.tokenize`.
        texts: strings (n,).
        batch_size: texts a call.

    Returns:
        Vectors, float32 (n, width); of length 1 if the weights are made for that.

    Raises:
        BadOption: the model has no tokenization, or does not give one vector for a text.
        MissingDependency: the extra `text` is not installed.
    """
    from zoo.embedding import embed

    return embed(model, texts, batch_size)


def tokenize(model: keras.Model, texts: Sequence[str]) -> np.ndarray:
    """Return the token ids of texts, by the tokenization of a model's weights.

    Args:
        model: a text model with weights of a run, or of a folder of transformers with its tokenizer.json or vocab.txt.
        texts: strings (n,).

    Returns:
        Ids, int32 (n, length), truncated to the model's length or padded with 0.

    Raises:
        BadOption: the model has no tokenization.
        MissingDependency: the extra `text` is not installed.
    """
    from zoo.embedding import tokenize

    return tokenize(model, texts)


def spec(model: str | os.PathLike[str]) -> ModelSpec:
    """Return the spec of a model without building it.

    Args:
        model: as for `zoo.get`; the `config.json` of a repository is downloaded.

    Raises:
        UnknownName: no model has this name.
        DataError: the repository cannot be read.
    """
    if not isinstance(model, str) or model not in _models:
        from zoo.weights.repositories import locate

        model, _ = locate(model, None)
    return _models[model].spec
