"""The smallest model of each family on scikit-learn's digits.

Command: zoo train digits_vgg
Hardware: 2 CPU cores.
Time: of one core, 11 s (digits_perceptron), 13 s (digits_highway), 19 s (digits_cnn), 34 s (digits_alexnet), 24 s
(digits_vgg), 33 s (digits_resnetv2), 52 s (digits_googlenet), 64 s (digits_inception), 60 s (digits_mobilenet), 79 s
(digits_efficientnet), 37 s (digits_convnext).
Result: mean test accuracy of seeds 1, 2 and 3 on the last 360 images, 0.8954 (digits_perceptron), 0.9204
(digits_highway), 0.9528 (digits_cnn), 0.9722 (digits_alexnet), 0.9759 (digits_vgg), 0.9713 (digits_resnetv2), 0.9796
(digits_googlenet), 0.9787 (digits_inception), 0.9750 (digits_mobilenet), 0.9722 (digits_efficientnet), 0.9704
(digits_convnext).
"""

from __future__ import annotations

import dataclasses

from training.recipe.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from training.recipe.recipe import Recipe, register_recipe

ADAMW = OptimizerConfig("adamw", learning_rate=2e-3, weight_decay=0.05)
SGD = OptimizerConfig("sgd", learning_rate=0.1, weight_decay=5e-4)
AUGMENT = AugmentConfig(shift=0.06, rotate=8, zoom=0.08)


def _register(
    name: str, model: str, optimizer: OptimizerConfig, *, pixels: int = 0, epochs: int = 40, plain: bool = False
) -> None:
    """Register a recipe for a model.

    Args:
        name: the end of the recipe's name.
        model: a registered name.
        optimizer: the optimizer.
        pixels: the image size, where the model needs more than 8 pixels; 0 for 8.
        epochs: passes over the training data.
        plain: no augmentation and label smoothing, which small dense models underfit with.
    """
    size, augment = (pixels, pixels) if pixels else (), AugmentConfig() if plain else AUGMENT
    register_recipe(
        Recipe(
            name=f"digits_{name}",
            model=ModelConfig(model),
            data=DataConfig("digits", batch_size=64, image_size=size, augment=augment),
            optimizer=optimizer,
            schedule=ScheduleConfig("cosine", warmup_epochs=2),
            loss=LossConfig(label_smoothing=0.0 if plain else 0.1),
            epochs=epochs,
            precision="float32",
            strategy="one",
            save="last",
        )
    )


_register("perceptron", "perceptron", OptimizerConfig("adamw", learning_rate=1e-2), plain=True)
_register("highway", "highway_tiny", ADAMW, plain=True)
_register("cnn", "cnn_tiny", ADAMW, pixels=16)
_register("alexnet", "alexnet_tiny", dataclasses.replace(ADAMW, learning_rate=1e-3), pixels=20)
_register("vgg", "vgg_bn_tiny", ADAMW)
_register("resnetv2", "resnetv2_tiny", SGD)
_register("googlenet", "googlenet_tiny", SGD)
_register("inception", "inception_tiny", SGD, pixels=16)
_register("mobilenet", "mobilenet_tiny", SGD, pixels=16, epochs=60)
_register("efficientnet", "efficientnet_tiny", SGD, pixels=16, epochs=60)
_register("convnext", "convnext_micro_tiny", ADAMW, pixels=16)
