"""Cases with tensorflow-model-optimization, run in a child process: prints one JSON object for the tests.

Called as `python compression_child.py CASE NAME`, a function of this file and a model.
"""

from __future__ import annotations

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

import zoo
from export.compression import compat, masks, tf_keras_copy, weight_clustering
from export.compression.batch_norm_folding import fold
from export.compression.pruning import Pruning
from export.compression.quantization import quantization_aware
from export.core.keras_graph import check_same, probe
from training.datasets.digits import TEST, TRAIN, load_pixels
from zoo.common.errors import ExportError, UnsupportedExport

SIZE = 16
PIXELS, LABELS = load_pixels()
VALUES = tf.image.resize((PIXELS - np.float32(78.0)) / np.float32(95.7), (SIZE, SIZE)).numpy()
TESTED = slice(TEST.start, TEST.stop)


def batches(epoch):
    """The training digits in an order of the epoch, labels one-hot."""
    data = tf.data.Dataset.from_tensor_slices((VALUES[TRAIN.start : TRAIN.stop], np.eye(10)[LABELS[: TRAIN.stop]]))
    return data.shuffle(TRAIN.stop, seed=epoch).batch(64)


def fit(model, epochs, callbacks):
    """Train a tf_keras model a little."""
    tf_keras_copy.fit(model, batches, epochs, rate=0.005, callbacks=callbacks)


def trained(name, epochs=8):
    """A model trained on the digits."""
    keras.utils.set_random_seed(1)
    model = zoo.get(name, input_shape=(SIZE, SIZE, 1))
    return train(model, epochs)


def train(model, epochs, callbacks=()):
    """Train a Keras model."""
    rate = keras.optimizers.schedules.CosineDecay(0.05, len(batches(0)) * epochs)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True), loss, jit_compile=False)
    for epoch in range(epochs):
        model.fit(batches(epoch), initial_epoch=epoch, epochs=epoch + 1, callbacks=list(callbacks), verbose=0)
    return model


def top1(logits):
    """The accuracy of logits on the test digits."""
    return float((np.asarray(logits).argmax(-1) == LABELS[TESTED]).mean())


def accuracy(model):
    """The accuracy of a model of either Keras."""
    return top1(model.predict(VALUES[TESTED], verbose=0))


def refused(action):
    """The message of the error that an action raises."""
    try:
        action()
    except (UnsupportedExport, ExportError) as error:
        return str(error)
    return ""


def interpret(content):
    """Accuracy, dtypes of input and output, and names of float tensors of a .tflite."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = source["quantization"]
    logits = []
    for image in VALUES[TESTED]:
        stored = np.clip(np.rint(image[None] / scale) + zero, -128, 127).astype("int8")
        interpreter.set_tensor(source["index"], stored)
        interpreter.invoke()
        logits.append(interpreter.get_tensor(target["index"])[0].astype("float32"))
    tensors = interpreter.get_tensor_details()
    # Tensors of delegates have no content; kernels are constants of rank 2 or 4.
    return {
        "accuracy": top1(logits),
        "io": [np.dtype(d["dtype"]).name for d in (source, target)],
        "floats": [t["name"] for t in tensors if t["dtype"] == np.float32],
        "int8": sum(t["dtype"] == np.int8 for t in tensors),
    }


def stored_zeros(content):
    """The sparsity of each int8 kernel of a .tflite, by its shape."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    found = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and tensor.type == 9 and len(tensor.shape) in (2, 4):
            values = np.frombuffer(bytes(data), np.int8)
            found["x".join(map(str, tensor.shape))] = float((values == 0).mean())
    return found


def qat(name):
    """Quantization-aware training."""
    model = trained(name)
    quantized = quantization_aware.quantize_aware(model, VALUES[:200], fit, epochs=1)
    content = quantization_aware.to_int8(quantized, quantization_aware.predict, (1, SIZE, SIZE, 1), ("image", "logits"))
    return {"float": accuracy(model), "simulated": accuracy(quantized), "tflite": interpret(content)}


def pruned_qat(name):
    """Quantization-aware training of a pruned model, and the control without constraints."""
    model = trained(name)
    masks.prune(model, Pruning(0.8), train, epochs=2, steps_per_epoch=len(batches(0)))
    quantized = quantization_aware.quantize_aware(model, VALUES[:200], fit, epochs=1)
    kernels = quantization_aware.kernels_by_layer(quantized).values()
    preserved = [[int((kernel == 0).sum()), kernel.size] for kernel in kernels]
    content = quantization_aware.to_int8(quantized, quantization_aware.predict, (1, SIZE, SIZE, 1), ("image", "logits"))
    for variable in quantized.trainable_variables:
        compat.set_constraint(variable, None)
    fit(quantized, 1, [])
    lost = [float((kernel == 0).mean()) for kernel in quantization_aware.kernels_by_layer(quantized).values()]
    return {"preserved": preserved, "lost": lost, "stored": stored_zeros(content)}


def refusal(name):
    """The error of quantization-aware training for a model."""
    return refused(lambda: quantization_aware.check_support(zoo.get(name, input_shape=(SIZE, SIZE, 1))))


def cluster(name):
    """Clustering of a model, and of one with zeros."""
    model = trained(name)
    floating, before = accuracy(model), list(weight_clustering.count_distinct_values(model).values())
    clustered = weight_clustering.cluster(model, 16, fit, epochs=1)
    masks.Masks(model, Pruning(0.5), 1).update(1)
    sparse = weight_clustering.cluster(model, 16, fit, epochs=1)
    sparsities = [count / size for count, size in masks.zero_counts(sparse, Pruning()).values()]
    return {
        "float": floating,
        "clustered": accuracy(clustered),
        "before": before,
        "after": list(weight_clustering.count_distinct_values(clustered).values()),
        "sparse": list(weight_clustering.count_distinct_values(sparse).values()),
        "zeros": sparsities,
    }


def copies(names):
    """Differences of tf_keras copies, the effect of a changed weight, and side effects of importing tfmot."""
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    compat.import_tfmot()
    found = {"left": os.environ.get("TF_USE_LEGACY_KERAS") != before, "three": tf.keras.__version__[0]}
    for name in names.split(","):
        model = fold(zoo.get(name, input_shape=(SIZE, SIZE, 1)))
        copy = tf_keras_copy.tf_keras_copy(model)
        found[name] = check_same(model, copy, probe(model), 1e-5)
    copy.layers[-1].set_weights([w + 1 for w in copy.layers[-1].get_weights()])
    found["control"] = refused(lambda: check_same(model, copy, probe(model), 1e-5))
    return found


def quick(names):
    """Copies, a refusal, quantization-aware training and clustering of a small model, in one process."""
    small = trained("mlp_tiny", epochs=3)
    quantized = quantization_aware.quantize_aware(small, VALUES[:200], fit, epochs=1)
    content = quantization_aware.to_int8(quantized, quantization_aware.predict, (1, SIZE, SIZE, 1), ("image", "logits"))
    clustered = weight_clustering.cluster(small, 16, fit, epochs=1)
    return copies(names) | {
        "refusal": refusal("convnext_micro_tiny"),
        "float": accuracy(small),
        "simulated": accuracy(quantized),
        "tflite": interpret(content),
        "clustered": accuracy(clustered),
        "distinct": list(weight_clustering.count_distinct_values(clustered).values()),
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2])))
