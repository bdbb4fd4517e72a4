"""ResNet-50 by torchvision's second recipe, on ImageNet.

Vryniotis 2021, "How to train state-of-the-art models using TorchVision's latest primitives": cosine, TrivialAugment,
mixup and CutMix, random erasing, label smoothing, repeated augmentation, an exponential moving average of the weights,
and training at 176 pixels for images of 224 (arXiv:1906.06423). The average is updated at each step with the 32nd root
of torchvision's decay, which updates it at each 32nd step. The weight decay is ten times the published one, which adds
to the gradient, where momentum 0.9 multiplies it by ten; here it is decoupled.

Command: zoo train imagenet_resnet50_v2 --set data.path=FOLDER
Hardware: published: 8 GPUs (A100).
Time: not published; 600 epochs, of which an image of 160 px takes 0.06 s on 2 CPU cores.
Result: published: top-1 accuracy 80.858% on the validation images. Not run here.
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
        name="imagenet_resnet50_v2",
        model=ModelConfig("resnet50"),
        data=DataConfig(
            "imagenet2012",
            batch_size=1024,
            image_size=(224, 224),
            train_size=(176, 176),
            augment=AugmentConfig(
                flip=True, crop_scale=(0.08, 1.0), trivial_augment=True, erase=0.1, mixup=0.2, cutmix=1.0, repeats=4
            ),
        ),
        optimizer=OptimizerConfig("sgd", learning_rate=0.5, nesterov=False, weight_decay=2e-4, ema=0.999966),
        schedule=ScheduleConfig("cosine", warmup_epochs=5),
        loss=LossConfig(label_smoothing=0.1),
        epochs=600,
        save="last",
    )
)
