"""DeiT small and base, on ImageNet.

Touvron et al. 2020, arXiv:2012.12877, table 9, without a teacher; `--set teacher.model=resnet50 --set
teacher.hard=true` adds one.

Command: zoo train imagenet_deit_small --set data.path=FOLDER
Hardware: published: 4 GPUs (V100) for the small, 8 GPUs for the base.
Time: published: less than 72 h for the small, 53 h for the base.
Result: published: top-1 accuracy 79.8% (small), 81.8% (base) on the validation images. Not run here.
"""

from __future__ import annotations

import dataclasses

from training.recipe.config import (
    AugmentConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from training.recipe.recipe import Recipe, register_recipe
from zoo.specs.preprocessing import IMAGENET

SMALL = Recipe(
    name="imagenet_deit_small",
    model=ModelConfig("deit_small_patch16_224"),
    data=DataConfig(
        "imagenet2012",
        batch_size=1024,
        image_size=(224, 224),
        augment=AugmentConfig(
            flip=True,
            crop_scale=(0.08, 1.0),
            rand_augment=2,
            magnitude=9.0,
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
            repeats=3,
        ),
        preprocessing=dataclasses.replace(IMAGENET, interpolation="bicubic"),
    ),
    optimizer=OptimizerConfig("adamw", learning_rate=1e-3, weight_decay=0.05),
    schedule=ScheduleConfig("cosine", warmup_epochs=5, end=0.01),
    loss=LossConfig(label_smoothing=0.1),
    epochs=300,
    save="last",
)
register_recipe(SMALL)
register_recipe(SMALL.override(name="imagenet_deit_base", model={"name": "deit_base_patch16_224"}))
