"""Models of keras.applications with random weights, and the names that they have in the zoo."""

from __future__ import annotations

from weights_cases import randomize

KERAS = {
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "ResNet50": "resnet50_v1",
    "ResNet101": "resnet101_v1",
    "ResNet152": "resnet152_v1",
    "ResNet50V2": "resnet50_v2",
    "ResNet101V2": "resnet101_v2",
    "ResNet152V2": "resnet152_v2",
    "InceptionV3": "inception_v3",
    "DenseNet121": "densenet121",
    "DenseNet169": "densenet169",
    "DenseNet201": "densenet201",
    "MobileNetV2": "mobilenet_v2",
    "EfficientNetB0": "efficientnet_b0",
    "ConvNeXtTiny": "convnext_tiny",
}
CAFFE = {"VGG16", "VGG19", "ResNet50", "ResNet101", "ResNet152"}
# The dense layers of VGG accept one size only.
SIZES = dict.fromkeys(("VGG16", "VGG19"), (224, 224)) | {"InceptionV3": (107, 91)}


def keras_application(name):
    """A model of keras.applications with random weights and statistics, and logits as outputs."""
    import keras

    # Automatic names then do not start at "conv2d", as in a process that has built other models.
    keras.layers.Conv2D(1, 1), keras.layers.Dense(1), keras.layers.BatchNormalization()
    shape = (*SIZES.get(name, (96, 83)), 3)
    application = getattr(keras.applications, name)
    return randomize(application(weights=None, input_shape=shape, classifier_activation=None))
