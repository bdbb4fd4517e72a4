"""What single values of a recipe may be: choices, ranges and lengths of lists, by dotted key."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.common.budgets import LARGEST_SIDE, MOST_TOKENS
from zoo.specs.tasks import TASKS

# Keras' optimizers, with those of ours, by name: the options among beta_1, beta_2, epsilon and rho that each has.
# TensorFlow need not be imported to check them; tests/training/recipe compares this table with `make_optimizer`.
OPTIMIZERS: Mapping[str, tuple[str, ...]] = {
    "adadelta": ("epsilon", "rho"),
    "adafactor": (),
    "adagrad": ("epsilon",),
    "adam": ("beta_1", "beta_2", "epsilon"),
    "adamax": ("beta_1", "beta_2", "epsilon"),
    "adamw": ("beta_1", "beta_2", "epsilon"),
    "ftrl": (),
    "lamb": ("beta_1", "beta_2", "epsilon"),
    "lion": ("beta_1", "beta_2"),
    "muon": ("beta_1", "beta_2", "epsilon"),
    "nadam": ("beta_1", "beta_2", "epsilon"),
    "rmsprop": ("epsilon", "rho"),
    "schedulefreeadamw": ("beta_1", "beta_2", "epsilon"),
    "sgd": (),
}
# Options for which 0 means Keras' default.
MOMENTS = ("beta_1", "beta_2", "epsilon", "rho")
# SGD with momentum by the textbook's names, and whether each is Nesterov's; and SciPy's L-BFGS.
ALIASES, LBFGS = {"momentum": False, "nesterov": True}, "lbfgs"

# Options of `regularize` that are routed to the model.
ROUTED = ("dropout", "drop_connect", "drop_path")

CHOICES = {
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "strategy": ("auto", "one", "mirrored", "multiworker", "tpu"),
    "jit": ("auto", "on", "off"),
    "save": ("best", "last"),
    "optimizer.name": (*OPTIMIZERS, *ALIASES, LBFGS),
    "schedule.name": (
        "constant",
        "cosine",
        "step",
        "exponential",
        "polynomial",
        "cosine_restarts",
        "one_cycle",
        "coslog4",
        "inverse_sqrt",
    ),
    "loss.name": ("auto", "cross_entropy", "binary_cross_entropy", "focal", "mse", "mae", "huber"),
    "data.normalize": ("", "minmax", "zscore", "channel", "robust"),
    "data.tokenizer": ("", "wordpiece"),
    "data.decimal": ("", ".", ","),
    "data.date_order": ("", "day", "month"),
    "data.header": ("", "yes", "no"),
    "data.task": ("", *(name for name, kind in TASKS.items() if kind.single or kind.marks or kind.several)),
    "finetune.freeze_batch_norm": ("auto", "on", "off"),
    "data.augment.place": ("auto", "pipeline", "device"),
    "data.augment.fill": ("constant", "reflect", "nearest"),
    "data.channels": (0, 1, 3),
}
# Largest values of lists.
LARGEST = {"data.image_size": LARGEST_SIDE, "data.train_size": LARGEST_SIDE, "data.length": MOST_TOKENS}
# Smallest and largest value, both allowed.
LIMITS = {
    "epochs": (1, 1e6),
    "replicas": (0, 4096),
    "data.max_pixels": (0, 1e12),
    "data.near_duplicates": (0, 16),
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
    "finetune.views": (0, 1000),
    "teacher.temperature": (1e-3, 1e3),
    "teacher.alpha": (0, 1),
    "teacher.beta": (0, 1e6),
    "log.every": (0, 1e9),
    "log.histograms": (0, 1e6),
    "log.misclassified": (0, 1000),
}
