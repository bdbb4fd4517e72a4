"""The data of a recipe: the dataset, its preprocessing and its augmentation."""

from __future__ import annotations

import dataclasses

from zoo.specs.preprocessing import PreprocessingConfig


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images; the defaults change nothing.

    Args:
        flip: mirror half of the images left to right.
        shift: maximum translation, as a fraction of height and width.
        rotate: maximum rotation, degrees.
        zoom: maximum change of scale, as a fraction.
        fill: values outside the image: "constant" (zeros), "reflect" or "nearest".
        pad_crop: pixels of padding on every side before a random crop of the original size.
        crop_scale: [minimum, maximum] fraction of the area that a random crop covers before it is resized (Inception's
            random-resized crop); empty for none. [0.08, 1.0] is usual for ImageNet. Images of other sizes than the
            model's input are cropped while they are decoded.
        crop_ratio: [minimum, maximum] aspect ratio, width to height, of that crop.
        brightness: maximum change of brightness, as a fraction.
        contrast: maximum change of contrast, as a fraction.
        saturation: maximum change of saturation, as a fraction; color images only.
        hue: maximum rotation of the hue, as a fraction of the circle, up to 0.5; color images only.
        noise: standard deviation of Gaussian noise, as a fraction of 255.
        rand_augment: random operations per image (RandAugment, arXiv:1909.13719); 0 for none.
        magnitude: strength of these operations, 0 to 10, on timm's scale; torchvision's scale is 0 to 30.
        trivial_augment: one random operation of random strength per image (TrivialAugment Wide, arXiv:2103.10158).
        erase: fraction of the images in which a random rectangle is erased (arXiv:1708.04896).
        mixup: alpha of mixup (arXiv:1710.09412), 0 for none; each batch draws one weight.
        cutmix: alpha of CutMix (arXiv:1905.04899), 0 for none; with mixup, each batch draws one of the two.
        repeats: differently augmented copies of each image in a batch (arXiv:1902.05509); the number of steps per
            epoch stays the same, so that an epoch covers fewer images.
        place: "pipeline" augments in the input pipeline, "device" in the training step; "auto" chooses the faster.
    """

    flip: bool = False
    shift: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    fill: str = "constant"
    pad_crop: int = 0
    crop_scale: tuple[float, ...] = ()
    crop_ratio: tuple[float, ...] = (0.75, 4 / 3)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    noise: float = 0.0
    rand_augment: int = 0
    magnitude: float = 9.0
    trivial_augment: bool = False
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1
    place: str = "auto"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The dataset, and how it is read.

    Args:
        name: a registered dataset ("digits", "folder"), or the name of a TFDS dataset.
        path: folder or file of your own data; the data directory of TFDS for TFDS datasets.
        batch_size: examples per step, over all replicas together.
        image_size: [height, width] that images are resized to; empty for the size of the dataset, else of the images
            that `model.weights` were made for, else of the model.
        train_size: [height, width] of training images where it differs, for models whose weights do not depend on it
            (arXiv:1906.06423); empty for `image_size`.
        channels: 1 for grayscale, 3 for color, 0 for the channels of the dataset.
        length: [tokens] of a text, or [source tokens, target tokens], that texts are truncated or padded to; empty for
            the length of the model.
        vocabulary: maximum size, special tokens included, of a vocabulary that is built from the data; 0 for the size
            of the model. Weights with their own tokenization bring their vocabulary.
        tokenizer: "wordpiece" learns a vocabulary of word pieces, as BERT's, from the training texts (extra `text`); ""
            splits texts as the dataset says, usually into words.
        skip_bad: leave out images that cannot be decoded, also those that change while a model trains, texts without a
            word, and rows of a table with too few or too many cells.
        max_pixels: width x height of the largest image that is decoded, by its header, as a small file can hold more
            than fits into memory; 0 for no limit.
        near_duplicates: name images of two splits that look alike: the number of bits of 64 by which their perceptual
            hashes may differ, such as 4; all images are decoded for it. 0 for no such search.
        augment: augmentation of training images.
        preprocessing: normalization and cropping; null for that of `model.weights`, else of the dataset, else
            of the model.
        normalize: statistics of the training split that normalize values: "minmax" to 0..1, images over all values and
            tables column by column; "zscore" to mean 0 and standard deviation 1 over all values; "channel" the same by
            channel, or by column, which is the default of tables; "robust", of tables, to a median of 0 and quartiles
            that are 1 apart. "" leaves it to `preprocessing`.
        split_fractions: [training, validation, test] fractions of a dataset that has no splits; empty for the default
            of the dataset.
        split_seed: seed of the shuffle before the split, or of the hashes of file names.
        stratify: split each class by the same fractions; without, of files, the hash of its name alone decides where
            each of them is.
        target: the column to predict, of a table or a label file, or several; "" for the last one.
        task: "classify", "regress" or "multilabel", of a table or a label file; "" infers it from the values of the
            target. Several targets have an output each, "multitask", unless all of them are 0 or 1, which are several
            labels; "regress" puts several numbers into one output.
        tasks: "classify", "regress" or "multilabel" for some of several targets, by their names.
        columns: the feature columns of a table, or the column of the text or of the image paths; empty for all others.
        decimal: the decimal sign of the numbers in a table or a label file, "." or ","; "" infers it column by column.
        date_order: what comes first in dates such as 03/04/2021 of a table, "day" or "month"; "" infers it.
        missing: texts that mean a missing cell of a table, or a missing label, in any case; empty for the usual ones:
            nothing, NA, N/A, null, None, NaN, -, ? and others.
        encoding: encoding of a text file, such as "cp1252"; "" for UTF-8, UTF-16 with a byte order mark, and cp1252
            where a file is neither.
        header: "yes" or "no", whether the first row of a table has the names of the columns; "" infers it.
    """

    name: str = "digits"
    path: str = ""
    batch_size: int = 64
    image_size: tuple[int, ...] = ()
    train_size: tuple[int, ...] = ()
    channels: int = 0
    length: tuple[int, ...] = ()
    vocabulary: int = 0
    tokenizer: str = ""
    skip_bad: bool = False
    max_pixels: int = 100_000_000
    near_duplicates: int = 0
    augment: AugmentConfig = AugmentConfig()
    preprocessing: PreprocessingConfig | None = None
    normalize: str = ""
    split_fractions: tuple[float, ...] = ()
    split_seed: int = 0
    stratify: bool = True
    target: str | tuple[str, ...] = ""
    task: str = ""
    tasks: dict[str, str] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ()
    decimal: str = ""
    date_order: str = ""
    missing: tuple[str, ...] = ()
    encoding: str = ""
    header: str = ""
