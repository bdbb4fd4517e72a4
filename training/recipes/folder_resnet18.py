"""ResNet-18 on your own folder of images, one sub-folder per class.

Command: zoo train folder_resnet18 --set data.path=FOLDER
Hardware: 2 CPU cores; larger data needs a GPU.
Time: 139 s for 1,149 training images.
Result: test accuracy 1.0000 on 143 images, seed 1; the images were scikit-learn's digits as JPEGs of 64x64 pixels.
"""

from __future__ import annotations

from training.recipe.config import (
    AugmentConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from training.recipe.recipe import Recipe, register_recipe

register_recipe(
    Recipe(
        name="folder_resnet18",
        # Zero-initialized residual branches make this learning rate safe from the first step.
        model=ModelConfig("resnet18", {"zero_init": True}),
        data=DataConfig(
            "folder",
            batch_size=32,
            image_size=(96, 96),
            channels=3,
            augment=AugmentConfig(flip=True, shift=0.1, zoom=0.1),
        ),
        optimizer=OptimizerConfig("sgd", learning_rate=0.05, weight_decay=5e-4),
        schedule=ScheduleConfig("cosine", warmup_epochs=2),
        loss=LossConfig(label_smoothing=0.1),
        epochs=20,
        save="best",
    )
)
