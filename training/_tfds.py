"""Any image-classification dataset of TensorFlow Datasets, without a download where it is prepared already."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from training._configs import DataConfig
from training._data import Dataset, Split, datasets
from zoo._errors import DataError, UnknownName, did_you_mean
from zoo._lazy import tfds

# Share of the training examples, from their end, that validates where a dataset has no split for it.
VALIDATION = 0.1


def load_by_name(config: DataConfig) -> Dataset:
    """Return the TFDS dataset `config.name`; raises UnknownName or DataError."""
    try:
        builder = tfds.builder(config.name, data_dir=config.path or None, try_gcs=False)
    except Exception as error:  # A namespace such as huggingface: lets through what its own client raises.
        known = [*datasets.names(), *tfds.list_builders()]
        raise UnknownName(
            f"Expected the name of a dataset of ours or of TFDS. Received: data.name={config.name!r}. "
            f"{did_you_mean(config.name, known)}"
        ) from error
    return from_builder(builder, config.name)


def from_builder(builder: Any, name: str, preprocessing: Any = None, *, local: bool = False) -> Dataset:
    """Return the Dataset of a TFDS builder, preparing it first if need be.

    Args:
        builder: a tfds.core.DatasetBuilder of labelled images.
        name: what the dataset is called.
        preprocessing: the data's own contract, if it states one.
        local: whether it is prepared from what is on the machine.
    """
    image, label = _keys(builder, name)
    _prepare(builder, name, local)
    splits = {ours: _split(builder, spec, image, label) for ours, spec in _specs(builder).items()}
    shape = tuple(size or 0 for size in builder.info.features[image].shape)
    return Dataset(name, tuple(builder.info.features[label].names), shape, splits, preprocessing)


def _prepare(builder: Any, name: str, local: bool) -> None:
    """Prepare the dataset where it is not yet; say what to put where if that needs a network that is not there."""
    if builder.data_path.exists():
        return
    try:
        if not local and _offline():
            # TFDS would go on trying for minutes.
            raise ConnectionError("no network")
        with _quiet():
            builder.download_and_prepare()
    except Exception as error:
        # Each dataset fetches and unpacks in its own way, so that anything can come out here.
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(
            f"The dataset {name!r} is not prepared here and cannot be downloaded. Prepare it on a machine with a "
            f"network (tfds build {name}) and put its folder at {builder.data_path} ({type(error).__name__}: {reason})"
        ) from error


def _offline() -> bool:
    """Tell whether this machine can reach nobody: no name is resolved and no proxy is set."""
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        return False
    try:
        socket.getaddrinfo("www.tensorflow.org", 443)
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS from drawing a bar for every file, printing what it does and logging every retry."""
    tfds.disable_progress_bar()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """Return the names of the image and the label among the features."""
    keys = builder.info.supervised_keys
    features = builder.info.features
    if (
        keys
        and isinstance(features[keys[0]], tfds.features.Image)
        and isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        return keys[0], keys[1]
    raise DataError(
        f"Expected a dataset of images with one class each. Received: data.name={name!r} with {list(features)}"
    )


def _specs(builder: Any) -> dict[str, str]:
    """Return our splits in TFDS' words; the end of "train" validates where nothing else does."""
    have = builder.info.splits
    specs = {"train": "train"}
    if "validation" in have:
        specs["validation"] = "validation"
    else:
        cut = have["train"].num_examples - round(VALIDATION * have["train"].num_examples)
        specs |= {"train": f"train[:{cut}]", "validation": f"train[{cut}:]"}
    return specs | ({"test": "test"} if "test" in have else {})


def _split(builder: Any, spec: str, image: str, label: str) -> Split:
    """Return one split, its images still encoded, in the order in which they are stored."""
    examples = builder.as_dataset(
        split=spec,
        decoders={image: tfds.decode.SkipDecoding()},
        shuffle_files=False,
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    return Split(examples.map(lambda e: (e[image], e[label])), builder.info.splits[spec].num_examples)
