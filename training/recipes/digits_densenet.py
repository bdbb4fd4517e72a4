"""A small DenseNet-BC on scikit-learn's digits.

Command: zoo train digits_densenet
Hardware: 2 CPU cores.
Time: 49 s of one core.
Result: test accuracy 0.9889, 0.9861, 0.9889, 0.9833 and 0.9944 with seeds 1 to 5, mean 0.9883, on the last 360 images.

The hyperparameters are those of digits_resnet. The two do not differ in five-fold cross-validation over contiguous
blocks of the first 1,437 images (seed 1: accuracy 0.976 and 0.977, loss 0.162 and 0.159).
"""

from __future__ import annotations

from training.recipe.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from training.recipe.recipe import Recipe, register_recipe

register_recipe(
    Recipe(
        name="digits_densenet",
        model=ModelConfig("densenet_tiny"),
        data=DataConfig("digits", batch_size=64, augment=AugmentConfig(shift=0.06, rotate=8, zoom=0.08)),
        optimizer=OptimizerConfig("sgd", learning_rate=0.1, weight_decay=5e-4),
        schedule=ScheduleConfig("cosine", warmup_epochs=2),
        loss=LossConfig(label_smoothing=0.1),
        epochs=40,
        precision="float32",
        strategy="one",
        save="last",
    )
)
