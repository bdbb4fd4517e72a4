"""ResNet-50 in 90 epochs, on ImageNet.

Goyal et al. 2017, arXiv:1706.02677, section 5.1, at the batch of 256 that He et al. 2015 use, and without their color
augmentation, as in torchvision. The weight decay is ten times the published one, which adds to the gradient, where
momentum 0.9 multiplies it by ten; here it is decoupled. For N times the batch size set N times the learning rate and a
warm-up of 5 epochs.

Command: zoo train imagenet_resnet50 --set data.path=FOLDER
Hardware: published: 8 GPUs (P100).
Time: published: 29 h.
Result: published: top-1 accuracy 76.4% on the validation images; torchvision's weights reach 76.13%. Not run here.
"""

from __future__ import annotations

from training.recipe.config import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from training.recipe.recipe import Recipe, register_recipe

register_recipe(
    Recipe(
        name="imagenet_resnet50",
        model=ModelConfig("resnet50", {"zero_init": True}),
        data=DataConfig(
            "imagenet2012",
            batch_size=256,
            image_size=(224, 224),
            augment=AugmentConfig(flip=True, crop_scale=(0.08, 1.0)),
        ),
        optimizer=OptimizerConfig("sgd", learning_rate=0.1, nesterov=True, weight_decay=1e-3),
        schedule=ScheduleConfig("step", milestones=(30, 60, 80)),
        epochs=90,
        save="last",
    )
)
