"""What a recipe is made of: frozen values with the field's own names, the choices among them and their limits."""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.common.errors import BadOption
from zoo.specs.preprocessing import PreprocessingConfig


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which network: a registered name, the options of its family, and the weights it begins with.

    Args:
        name: a registered name.
        options: of its family.
        weights: what `zoo.get` takes as weights, "imagenet" or the path of a file, where training starts; "" for those
            drawn from the seed, and so is a head of another number of classes.
    """

    name: str = "resnet_tiny"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = ""


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to training images only; all 0 leaves them as they are.

    Args:
        flip: mirror half of the images left to right.
        shift: largest translation, as a share of height and width.
        rotate: largest rotation, degrees.
        zoom: largest change of scale, as a share.
        fill: what comes in at the edges: "constant" (zeros), "reflect" or "nearest".
        pad_crop: pixels that are added on every side before a crop of the old size is cut out at random.
        crop_scale: smallest and largest share of an image's area that a random crop keeps, which is then resized
            (Inception's training crop); empty for none. [0.08, 1.0] is usual for ImageNet. Images of other sizes than
            the network's are cropped while they are decoded.
        crop_ratio: smallest and largest ratio of width to height of that crop.
        brightness: largest change of brightness, as a share.
        contrast: largest change of contrast, as a share.
        saturation: largest change of saturation, as a share; colour images only.
        hue: largest turn of the hue, as a share of the whole circle, up to 0.5; colour images only.
        noise: standard deviation of Gaussian noise, in units of 255 levels as a share.
        rand_augment: how many random operations an image gets (RandAugment, arXiv:1909.13719); 0 for none.
        magnitude: how strong those are, 0 to 10, as timm counts; torchvision's 0 to 30 is three times as much.
        trivial_augment: one random operation of random strength an image (TrivialAugment wide, arXiv:2103.10158).
        erase: share of images that a random rectangle is erased of (arXiv:1708.04896).
        mixup: alpha of mixup (arXiv:1710.09412), 0 for none; each batch draws one weight.
        cutmix: alpha of cutmix (arXiv:1905.04899), 0 for none; with mixup, each batch draws one of them.
        repeats: how many differently augmented copies of an image a batch holds (arXiv:1902.05509); an epoch has as
            many steps as without, on as much fewer images.
        place: "pipeline" augments in the data pipeline, "device" in the step; "auto" takes what was measured faster.
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
    """Which data, and how it is served.

    Args:
        name: a registered dataset ("digits", "folder"), or the name of a TFDS dataset.
        path: the folder or file of a dataset of one's own; where TFDS keeps its data for the others.
        batch_size: examples a step, over all replicas together.
        image_size: (height, width) that images are resized to; none takes the dataset's or the model's own.
        train_size: (height, width) of images in training where that is another size, for networks whose weights do not
            depend on it (arXiv:1906.06423); none for `image_size`.
        channels: 1 for grey, 3 for colour, 0 for what the dataset has.
        length: (tokens,) of a text, or (source tokens, target tokens), that texts are cut or padded to; none takes the
            model's own.
        vocabulary: most tokens, special ones included, of a vocabulary that is learnt from the data; 0 takes the
            model's own number.
        skip_bad: leave images out that cannot be decoded, instead of stopping.
        augment: what happens to training images.
        preprocessing: scaling and cropping; none takes the dataset's own, else the model's.
        normalize: statistics of the training split that scale values: "minmax" to 0..1, of images over all values and
            of tables column by column; "zscore" to mean 0 and standard deviation 1 over all values; "channel" the same
            channel by channel, or column by column, which is what tables have by themselves. "" leaves it to
            `preprocessing`.
        shares: of training, validation and test examples where the data is not divided; none takes the dataset's own.
        split_seed: of the shuffle before data is divided.
        stratify: divide each class alike.
        target: the column that is predicted, of a table; "" for the last one.
        task: what is done with it, "classify" or "regress"; "" infers that from its values.
        columns: those that are features, of a table, or the one of the text; none for all others.
    """

    name: str = "digits"
    path: str = ""
    batch_size: int = 64
    image_size: tuple[int, ...] = ()
    train_size: tuple[int, ...] = ()
    channels: int = 0
    length: tuple[int, ...] = ()
    vocabulary: int = 0
    skip_bad: bool = False
    augment: AugmentConfig = AugmentConfig()
    preprocessing: PreprocessingConfig | None = None
    normalize: str = ""
    shares: tuple[float, ...] = ()
    split_seed: int = 0
    stratify: bool = True
    target: str = ""
    task: str = ""
    columns: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer of Keras; biases, normalization, scales of layers, embeddings and tokens are never decayed.

    Args:
        name: "sgd", "adam", "adamw", "rmsprop", "adagrad", "lamb", "lion", "muon" or another of Keras'; "momentum" and
            "nesterov" stand for sgd with either; or "lbfgs", SciPy's, on all training data at once, for small networks:
            epochs are its iterations, and rates, momentum and schedules do nothing.
        learning_rate: its peak, for a batch of `data.batch_size`.
        momentum: for optimizers that have it (sgd, rmsprop).
        nesterov: Nesterov momentum, for sgd.
        weight_decay: decoupled decay a step, multiplied by the learning rate.
        clip_norm: largest norm of all gradients together; 0 for no clipping.
        clip_each: largest norm of each gradient; 0 for no clipping.
        clip_value: largest absolute value in a gradient; 0 for no clipping.
        beta_1: share of the running mean of gradients that a step keeps (adam and its kin); 0 for Keras' own.
        beta_2: share of the running mean of squared gradients that a step keeps (adam and its kin); 0 for Keras' own.
        epsilon: what is added to a root before dividing by it (adam and its kin); 0 for Keras' own.
        rho: share of the running mean of squared gradients that a step keeps (rmsprop); 0 for Keras' own.
        layer_decay: learning rate of a block, or of a layer outside of blocks, as a share of that of the one behind it
            (arXiv:2003.10555); 0 or 1 for one rate for all.
        accumulate: steps whose gradients are averaged before the weights change.
        ema: share of the running mean of weights that an update keeps, fewer at first: update t keeps min(ema,
            (1 + t) / (10 + t)). The mean is what is evaluated, kept and exported. 0 for none.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    clip_each: float = 0.0
    clip_value: float = 0.0
    beta_1: float = 0.0
    beta_2: float = 0.0
    epsilon: float = 0.0
    rho: float = 0.0
    layer_decay: float = 0.0
    accumulate: int = 1
    ema: float = 0.0


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves: linear warm-up over some epochs to the peak, then on by name.

    Args:
        name: "constant"; "cosine" to `end` x peak; "step", x `factor` at each of `milestones` or every `period`;
            "exponential", x `factor` every `period`; "polynomial" of `power` to `end` x peak;
            "cosine_restarts", cosines from the peak, the first over `period`, each `factor` times as long (SGDR,
            arXiv:1608.03983); "one_cycle", from peak / 25 up over 0.3 of the time and down to `end` x peak, both on
            cosines (arXiv:1708.07120); or "inverse_sqrt", peak x sqrt(warm-up steps / step), steps from 1, which is
            equation 3 of Vaswani et al. 2017 (arXiv:1706.03762) and needs a warm-up.
        warmup_epochs: epochs of the warm-up.
        end: share of the peak at which it ends.
        milestones: epochs at which "step" falls.
        period: epochs; see `name`.
        factor: see `name`; 0 for the usual (0.1 of a step, 0.94 of an exponential, 1 of restarts).
        power: of the polynomial.
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    end: float = 0.0
    milestones: tuple[float, ...] = ()
    period: float = 0.0
    factor: float = 0.0
    power: float = 1.0


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What is minimized, on logits or values.

    Of a sequence it is the mean over all tokens of a batch that are not padding.

    Args:
        name: "auto", what the task usually takes: categorical cross-entropy of classes, binary of several labels at
            once, the mean square of numbers; else "cross_entropy", "binary_cross_entropy", "focal" (arXiv:1708.02002),
            "mse", "mae" or "huber".
        label_smoothing: share of each label that is spread over all classes, or over the vocabulary.
        gamma: of the focal loss, how much less an example counts that is answered well.
        delta: of Huber's loss, where the square ends.
        class_weight: how much each class counts, one number a class; none for all alike.
        balanced: let each class count inversely to its share of the training examples.
        heads: weights of the losses of auxiliary outputs, by the name of the output.
    """

    name: str = "auto"
    label_smoothing: float = 0.0
    gamma: float = 2.0
    delta: float = 1.0
    class_weight: tuple[float, ...] = ()
    balanced: bool = False
    heads: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RegularizeConfig:
    """What keeps weights small, beside the decay of the optimizer and the dropout that are options of networks.

    Args:
        l1: added to the loss, x sum |w| over all kernels.
        l2: added to the loss, x sum w² over all kernels.
        dropout: share of the pooled features that is dropped; for networks that have the option.
        spatial_dropout: share of whole channels dropped behind each stage's activation.
        drop_connect: share of weights dropped; for networks that have the option.
        drop_path: share of residual branches dropped; for networks that have the option.
        spectral_norm: divide each kernel by its largest singular value (arXiv:1802.05957).
        patience: epochs without a better validation figure after which training ends; 0 for never.
    """

    l1: float = 0.0
    l2: float = 0.0
    dropout: float = 0.0
    spatial_dropout: float = 0.0
    drop_connect: float = 0.0
    drop_path: float = 0.0
    spectral_norm: bool = False
    patience: int = 0


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """Knowledge distillation: who teaches, and how much the student listens (Hinton et al. 2015, arXiv:1503.02531).

    loss = alpha x T² x KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) x loss of the labels
           + beta x mean square of the difference of features

    Args:
        run: a finished run.
        model: else a registered name.
        weights: of that model.
        temperature: T.
        alpha: share of the teacher's answers.
        beta: weight of its features (FitNets, arXiv:1412.6550); 0 for none.
        features: the stages, from 1, whose maps are compared; the student's go through a 1x1 convolution where they
            differ in width.
        hard: learn the teacher's first choice instead of its distribution (DeiT, arXiv:2012.12877).
    """

    run: str = ""
    model: str = ""
    weights: str = "imagenet"
    temperature: float = 4.0
    alpha: float = 0.7
    beta: float = 0.0
    features: tuple[int, ...] = ()
    hard: bool = False


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What TensorBoard is told beside the figures of each epoch.

    Args:
        every: steps between two measurements of gradients, updates and dead units; 0 for none.
        histograms: epochs between two histograms of all weights; 0 for none.
        mistakes: how many examples that are answered wrongly are shown in the end.
        profile: first and last step of the first epoch to profile; none for none.
    """

    every: int = 50
    histograms: int = 0
    mistakes: int = 16
    profile: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.profile and not (len(self.profile) == 2 and 1 <= self.profile[0] <= self.profile[1]):
            raise BadOption(f"log.profile must be [first step, last step]. Received: log.profile={list(self.profile)}")


CHOICES = {
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "strategy": ("auto", "one", "mirrored", "multiworker", "tpu"),
    "jit": ("auto", "on", "off"),
    "keep": ("best", "last"),
    "schedule.name": (
        "constant",
        "cosine",
        "step",
        "exponential",
        "polynomial",
        "cosine_restarts",
        "one_cycle",
        "inverse_sqrt",
    ),
    "loss.name": ("auto", "cross_entropy", "binary_cross_entropy", "focal", "mse", "mae", "huber"),
    "data.normalize": ("", "minmax", "zscore", "channel"),
    "data.task": ("", "classify", "regress"),
    "data.augment.place": ("auto", "pipeline", "device"),
    "data.augment.fill": ("constant", "reflect", "nearest"),
    "data.channels": (0, 1, 3),
}
# Smallest value, largest value and whether the ends are allowed.
LIMITS = {
    "epochs": (1, 1e6),
    "replicas": (0, 4096),
    "seed": (0, 2**31 - 1),
    "checkpoint_seconds": (0, 1e9),
    "checkpoint_steps": (0, 1e9),
    "data.batch_size": (1, 1e6),
    "data.vocabulary": (0, 1e7),
    "data.augment.shift": (0, 1),
    "data.augment.rotate": (0, 180),
    "data.augment.zoom": (0, 0.99),
    "data.augment.pad_crop": (0, 1e4),
    "data.augment.brightness": (0, 1),
    "data.augment.contrast": (0, 1),
    "data.augment.saturation": (0, 1),
    "data.augment.hue": (0, 0.5),
    "data.augment.noise": (0, 1),
    "data.augment.rand_augment": (0, 14),
    "data.augment.magnitude": (0, 10),
    "data.augment.erase": (0, 1),
    "data.augment.mixup": (0, 100),
    "data.augment.cutmix": (0, 100),
    "data.augment.repeats": (1, 64),
    "data.split_seed": (0, 2**31 - 1),
    "optimizer.learning_rate": (0, 1e38),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, 1),
    "optimizer.clip_norm": (0, 1e38),
    "optimizer.clip_each": (0, 1e38),
    "optimizer.clip_value": (0, 1e38),
    "optimizer.beta_1": (0, 0.999999),
    "optimizer.beta_2": (0, 0.999999),
    "optimizer.rho": (0, 0.999999),
    "optimizer.layer_decay": (0, 1),
    "optimizer.accumulate": (1, 1e6),
    "optimizer.ema": (0, 0.999999),
    "optimizer.epsilon": (0, 1),
    "schedule.warmup_epochs": (0, 1e6),
    "schedule.end": (0, 1),
    "schedule.period": (0, 1e6),
    "schedule.factor": (0, 1e3),
    "schedule.power": (0.01, 100),
    "loss.label_smoothing": (0, 0.99),
    "loss.gamma": (0, 100),
    "loss.delta": (1e-9, 1e38),
    "regularize.l1": (0, 1e3),
    "regularize.l2": (0, 1e3),
    "regularize.dropout": (0, 0.99),
    "regularize.spatial_dropout": (0, 0.99),
    "regularize.drop_connect": (0, 0.99),
    "regularize.drop_path": (0, 0.99),
    "regularize.patience": (0, 1e6),
    "teacher.temperature": (1e-3, 1e3),
    "teacher.alpha": (0, 1),
    "teacher.beta": (0, 1e6),
    "log.every": (0, 1e9),
    "log.histograms": (0, 1e6),
    "log.mistakes": (0, 1000),
}
