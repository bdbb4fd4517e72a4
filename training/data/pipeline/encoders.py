"""The encoder of a dataset."""

from __future__ import annotations

from training.data.dataset import Dataset
from training.data.pipeline.encoding import Encoder, ImageEncoder, TableEncoder
from training.data.pipeline.text_encoding import PairEncoder, TagEncoder, TextEncoder
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.text import TextConfig

TEXT_ENCODERS = {"tag": TagEncoder, "generate": PairEncoder}
# By whether the data is a table and whether it is images.
ENCODERS = {(True, False): TableEncoder, (False, True): ImageEncoder, (False, False): Encoder}


def make_encoder(
    dataset: Dataset, shape: tuple[int, ...], preprocessing: PreprocessingConfig, text: TextConfig | None
) -> Encoder:
    """Return the encoder for the kind of data.

    Args:
        dataset: the examples.
        shape: shape of one example as an array.
        preprocessing: the preprocessing.
        text: the text config; None where the data is no text.
    """
    plain = ENCODERS[bool(dataset.table), len(shape) == 3]
    cls = TEXT_ENCODERS.get(dataset.task, TextEncoder) if text else plain
    return cls(dataset, shape, preprocessing, text)
