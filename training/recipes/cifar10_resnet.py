"""ResNet-20 to ResNet-110 on CIFAR-10.

He et al. 2015, arXiv:1512.03385, section 4.2: 64,000 steps of 128 images, the learning rate divided by 10 at 32,000 and
48,000, four pixels of padding, crops and flips. The weight decay is ten times the published 1e-4, which adds to the
gradient, where momentum 0.9 multiplies it by ten; here it is decoupled.

Command: zoo train cifar10_resnet20
Hardware: published: 2 GPUs.
Time: not published; a step of ResNet-20 takes 0.17 s on 2 CPU cores, of 64,000.
Result: published: test accuracy 91.25% (20), 92.49% (32), 92.83% (44), 93.03% (56), 93.57% (110). Not run here.
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

for depth in (20, 32, 44, 56, 110):
    register_recipe(
        Recipe(
            name=f"cifar10_resnet{depth}",
            model=ModelConfig(f"resnet{depth}"),
            data=DataConfig("cifar10", batch_size=128, augment=AugmentConfig(flip=True, pad_crop=4)),
            optimizer=OptimizerConfig("sgd", learning_rate=0.1, nesterov=False, weight_decay=1e-3),
            # The deepest model does not train at the full rate at first.
            schedule=ScheduleConfig("step", warmup_epochs=1, milestones=(91, 137)),
            epochs=182,
            save="last",
        )
    )
