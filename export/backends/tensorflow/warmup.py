"""Warm-up requests for TensorFlow Serving, which runs each once before a model takes traffic.

The file is a TFRecord of `tensorflow.serving.PredictionLog`. The package with these messages is no dependency: the few
fields that are needed are declared here, with the field numbers of tensorflow_serving/apis/*.proto.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.common.lazy import LazyModule, tf

descriptor = LazyModule("google.protobuf.descriptor_pb2", "protobuf")
factory = LazyModule("google.protobuf.message_factory", "protobuf")
pools = LazyModule("google.protobuf.descriptor_pool", "protobuf")

PACKAGE = "zoo.serving"
FILE = "tf_serving_warmup_requests"
# Number and type of each field; message types are declared here too.
MESSAGES = {
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    # A map is a repeated message of key and value on the wire; the value is a TensorProto, written out.
    "Input": {"key": (1, "string"), "value": (2, "bytes")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "repeated Input")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}


@functools.cache
def _messages() -> dict[str, Any]:
    """Return the classes of the messages."""
    kinds = descriptor.FieldDescriptorProto
    file = descriptor.FileDescriptorProto(name="zoo/serving.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = kinds.LABEL_REPEATED if kind.startswith("repeated ") else kinds.LABEL_OPTIONAL
            entry = message.field.add(name=field, number=number, label=label)
            kind = kind.removeprefix("repeated ")
            if kind in MESSAGES:
                entry.type, entry.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                entry.type = {"string": kinds.TYPE_STRING, "bytes": kinds.TYPE_BYTES}[kind]
    pool = pools.DescriptorPool()
    pool.Add(file)
    return {name: factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


def request(model: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    """Return a serialized PredictionLog of one request.

    Args:
        model: name that the model is served under.
        signature: name of the signature.
        inputs: arrays, or lists of bytes, by input.
    """
    kinds = _messages()
    entries = [
        kinds["Input"](key=name, value=tf.make_tensor_proto(value).SerializeToString())
        for name, value in inputs.items()
    ]
    spec = kinds["ModelSpec"](name=model, signature_name=signature)
    predict = kinds["PredictRequest"](model_spec=spec, inputs=entries)
    return kinds["PredictionLog"](predict_log=kinds["PredictLog"](request=predict)).SerializeToString()


def write_warmup(folder: Path, model: str, examples: Mapping[str, Mapping[str, Any]]) -> None:
    """Write one request for each signature.

    Args:
        folder: assets.extra of the version folder.
        model: name that the model is served under.
        examples: inputs by signature.
    """
    with tf.io.TFRecordWriter(str(folder / FILE)) as file:
        for signature, inputs in examples.items():
            file.write(request(model, signature, inputs))
