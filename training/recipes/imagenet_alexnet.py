"""AlexNet as in 2012, on ImageNet.

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012. The learning
rate decays at fixed epochs, where the authors watched the validation error; color augmentation is brightness, where
theirs is along the principal components of the pixels. The weight decay is ten times the published one, which adds to
the gradient, where momentum 0.9 multiplies it by ten; here it is decoupled.

Command: zoo train imagenet_alexnet --set data.path=FOLDER
Hardware: published: 2 GPUs (GTX 580).
Time: published: 6 days, which are 144 h.
Result: published: top-1 accuracy 59.3% on the validation images, of five crops and their mirror images. Not run here.
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
        name="imagenet_alexnet",
        model=ModelConfig("alexnet"),
        data=DataConfig(
            "imagenet2012",
            batch_size=128,
            image_size=(227, 227),
            augment=AugmentConfig(flip=True, crop_scale=(0.7, 0.8), crop_ratio=(1.0, 1.0), brightness=0.1),
        ),
        optimizer=OptimizerConfig("sgd", learning_rate=0.01, nesterov=False, weight_decay=5e-3),
        schedule=ScheduleConfig("step", milestones=(30, 50, 70)),
        epochs=90,
        save="last",
    )
)
