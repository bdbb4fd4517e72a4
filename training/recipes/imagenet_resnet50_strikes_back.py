"""ResNet-50 by the three recipes of "ResNet strikes back", on ImageNet.

Wightman, Touvron and Jegou 2021, arXiv:2110.00476, table 2: LAMB, binary cross-entropy of each class, RandAugment,
mixup and CutMix. A1 has 600 epochs, A2 300, A3 100 at 160 pixels, for images of 224.

Command: zoo train imagenet_resnet50_a2 --set data.path=FOLDER
Hardware: published: 4 GPUs (V100, 32 GB).
Time: published: A1 110 h, A2 55 h, A3 15 h.
Result: published: top-1 accuracy 80.4% (A1), 79.8% (A2), 78.1% (A3) on the validation images. Not run here.
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

AUGMENT = AugmentConfig(
    flip=True, crop_scale=(0.08, 1.0), rand_augment=2, magnitude=7.0, mixup=0.1, cutmix=1.0, repeats=3
)
A2 = Recipe(
    name="imagenet_resnet50_a2",
    model=ModelConfig("resnet50", {"drop_path": 0.05}),
    data=DataConfig(
        "imagenet2012",
        batch_size=2048,
        image_size=(224, 224),
        augment=AUGMENT,
        preprocessing=dataclasses.replace(IMAGENET, interpolation="bicubic", crop=0.95),
    ),
    optimizer=OptimizerConfig("lamb", learning_rate=5e-3, weight_decay=0.02),
    schedule=ScheduleConfig("cosine", warmup_epochs=5),
    loss=LossConfig("binary_cross_entropy"),
    epochs=300,
    save="last",
)
register_recipe(A2)
register_recipe(
    A2.override(
        **{
            "name": "imagenet_resnet50_a1",
            "epochs": 600,
            "optimizer.weight_decay": 0.01,
            "loss.label_smoothing": 0.1,
            "data.augment.mixup": 0.2,
        }
    )
)
register_recipe(
    A2.override(
        **{
            "name": "imagenet_resnet50_a3",
            "epochs": 100,
            "optimizer.learning_rate": 8e-3,
            "model.options": {},
            "data.train_size": [160, 160],
            "data.augment.repeats": 1,
            "data.augment.magnitude": 6.0,
        }
    )
)
