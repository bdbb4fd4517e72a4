"""The configs of a recipe: frozen values with the names of the field."""

from __future__ import annotations

import dataclasses
from typing import Any

from training.recipe.data_config import AugmentConfig, DataConfig
from training.recipe.optimizer_config import OptimizerConfig, ScheduleConfig

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "FinetuneConfig",
    "LogConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RegularizeConfig",
    "ScheduleConfig",
    "TeacherConfig",
]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model: a registered name, the options of its family, and its initial weights.

    Args:
        name: a registered model; or, as in `zoo.get`, a name that has its weights: timm's "model.tag",
            "hf://user/repository" or a local folder with the same files.
        options: options of its family.
        weights: initial weights, as in `zoo.get`: "imagenet" or the path of a file; "" for random weights. A head for
            another number of classes is random too.
    """

    name: str = "resnet_tiny"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = ""


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning of `model.weights` in stages: usually of the head alone first, with a frozen trunk, then of all.

    Args:
        stages: what each stage trains: "head", the last layers with weights; "all"; or from a layer or block on, by
            name, such as "stage4". Empty for no stages: all layers from the start.
        milestones: epochs at which the next stage starts, one less than stages.
        learning_rates: peak learning rate of each stage; empty for `optimizer.learning_rate` in all. The schedule, its
            warm-up and the state of the optimizer start again with each stage.
        views: in stages of the head, compute the features of this many augmented views of each training image once,
            and train on these in turn, in a fraction of the time; 1 without augmentation. 0 computes them in each
            epoch.
        freeze_batch_norm: "on" keeps the pretrained statistics of batch normalization also in layers that are trained,
            "off" updates them there; "auto" is on in stages with batches of less than 64 examples. Frozen layers
            always keep theirs.
    """

    stages: tuple[str, ...] = ()
    milestones: tuple[int, ...] = ()
    learning_rates: tuple[float, ...] = ()
    views: int = 0
    freeze_batch_norm: str = "auto"


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss on logits or values; of sequences, the mean over all tokens of a batch that are not padding.

    Args:
        name: "auto" for the usual loss of the task (categorical cross-entropy of classes, binary cross-entropy of
            several labels at once, mean squared error of values), "cross_entropy", "binary_cross_entropy", "focal"
            (arXiv:1708.02002), "mse", "mae" or "huber".
        label_smoothing: fraction of each label that is spread over all classes, or over the vocabulary.
        gamma: focusing parameter of the focal loss.
        delta: threshold of the Huber loss between squared and absolute error.
        class_weight: weight of each class, one number per class; empty for equal weights.
        balanced: weight each class inversely to its frequency in the training split.
        heads: loss weights by the name of the output: of auxiliary outputs, and of several targets, which have 1 by
            default.
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
    """Regularization, in addition to weight decay of the optimizer and dropout in the options of models.

    Args:
        l1: adds this times sum |w| over all kernels to the loss.
        l2: adds this times sum w² over all kernels to the loss.
        dropout: dropout rate of the pooled features; for models with this option.
        spatial_dropout: dropout rate of whole channels behind the activation of each stage.
        drop_connect: dropout rate of weights; for models with this option.
        drop_path: dropout rate of residual branches (stochastic depth); for models with this option.
        spectral_norm: divide each kernel by its largest singular value (arXiv:1802.05957).
        patience: epochs without a better validation metric before training stops early; 0 for no early stopping.
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
    """Knowledge distillation from a teacher (Hinton et al. 2015, arXiv:1503.02531).

    loss = alpha x T² x KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) x loss of the labels
           + beta x mean squared difference of features

    Args:
        run: the directory of a finished run.
        model: or a registered model.
        weights: weights of that model, as in `zoo.get`.
        temperature: T.
        alpha: weight of the distillation loss.
        beta: weight of the feature loss (FitNets, arXiv:1412.6550); 0 for none.
        features: the stages, from 1, for the feature loss; a 1x1 convolution maps the student's features where the
            numbers of channels differ.
        hard: use the teacher's top-1 prediction instead of its distribution (DeiT, arXiv:2012.12877).
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
    """What TensorBoard shows in addition to the metrics of each epoch.

    Args:
        every: steps between two measurements of gradients, updates and dead units; 0 for none.
        histograms: epochs between two histograms of all weights; 0 for none.
        misclassified: misclassified examples, or those of the largest error, to show at the end.
        profile: [first step, last step] of the first epoch to profile; empty for none.
    """

    every: int = 50
    histograms: int = 0
    misclassified: int = 16
    profile: tuple[int, ...] = ()
