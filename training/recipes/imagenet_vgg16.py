"""VGG-16 as in 2014, on ImageNet.

Simonyan and Zisserman, arXiv:1409.1556, section 3.1: images are scaled at random before a crop of 224 pixels, and the
learning rate decays three times. The authors started from the weights of a shallower model; here initial weights are
those of He et al. 2015. The weight decay is ten times the published one, which adds to the gradient, where momentum 0.9
multiplies it by ten; here it is decoupled.

Command: zoo train imagenet_vgg16 --set data.path=FOLDER
Hardware: published: 4 GPUs (Titan Black).
Time: published: 2 to 3 weeks, which are more than 336 h.
Result: published: top-1 accuracy 74.4% on the validation images, at one scale (table 3, D). Not run here.
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
        name="imagenet_vgg16",
        model=ModelConfig("vgg16"),
        data=DataConfig(
            "imagenet2012",
            batch_size=256,
            image_size=(224, 224),
            augment=AugmentConfig(flip=True, crop_scale=(0.2, 0.77), crop_ratio=(1.0, 1.0), brightness=0.1),
        ),
        optimizer=OptimizerConfig("sgd", learning_rate=0.01, nesterov=False, weight_decay=5e-3),
        schedule=ScheduleConfig("step", milestones=(30, 50, 65)),
        epochs=74,
        save="last",
    )
)
