"""Small files and options that would allocate gigabytes are refused in one line, within a second."""

from __future__ import annotations

import io
import resource
import struct
import time
import zipfile

import numpy as np
import pytest

import training
import zoo
from export.core.options import Options, parse_options
from export.core.samples import read_samples
from export.source.request import RegistryRequest
from training.data.readers.table_files import read_rows
from training.recipe.recipe import resolve
from zoo.common import budgets
from zoo.common.errors import ZooError
from zoo.reading.arrays import read_npz
from zoo.specs.registry import models
from zoo.weights.safetensors_file import read_safetensors

LARGE = 1 << 33  # bytes
# What a refusal may take, with the imports that it needs.
SECONDS, KILOBYTES = 1.0, 300_000


def hdf5(declare):
    """The content of an HDF5 file that a function fills."""
    import h5py

    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        declare(file)
    return stored.getvalue()


def zeros(file):
    """A dataset of eight gigabytes without a stored value."""
    file.create_dataset("layers/dense/vars/0", (LARGE // 4,), "float32", chunks=(1 << 20,))


def compressed(file):
    """A dataset of 64 MB of zeros, which takes a few kilobytes."""
    file.create_dataset("layers/dense/vars/0", data=np.zeros(1 << 24, "float32"), compression="gzip")


def outside(file):
    """A dataset whose values are in another file."""
    file.create_dataset("layers/dense/vars/0", (4,), "float32", external=[("/etc/passwd", 0, 16)])


def keras_file(path, weights, method=zipfile.ZIP_STORED):
    """Write a .keras file with weights."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", weights)
    return path


def write_zeros(path, name, head, megabytes):
    """Write an archive with one member, of zeros after its head."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open(name, "w") as member:
        member.write(head)
        for _ in range(megabytes):
            member.write(bytes(1 << 20))


def refused(call, *reasons, seconds=SECONDS, kilobytes=KILOBYTES):
    """Return the one-line error of a call, which names its reasons and takes neither time nor memory."""
    begin, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ZooError) as error:
        call()
    assert time.process_time() - begin < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < kilobytes
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    for reason in reasons:
        assert reason in message
    return message


def test_zip_members_that_unpack_to_gigabytes_are_refused(tmp_path):
    """A .keras file with 200 MB of zeros in a megabyte."""
    path = tmp_path / "model.keras"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("model.weights.h5", "w") as member,
    ):
        for _ in range(200):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    refused(lambda: zoo.load_model(path), "model.keras", "unpack to")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("declare", [zeros, compressed, outside])
def test_large_datasets_are_refused(declare, method, tmp_path):
    """In a .keras file, in an .h5 file, and in a file of weights."""
    content = hdf5(declare)
    reason = "not in the file" if declare is outside else "declare"
    refused(lambda: zoo.load_model(keras_file(tmp_path / "m.keras", content, method)), "m.keras", reason)
    (tmp_path / "m.h5").write_bytes(content)
    refused(lambda: zoo.load_model(tmp_path / "m.h5"), "m.h5", reason)
    (tmp_path / "m.weights.h5").write_bytes(content)
    refused(lambda: zoo.get("mlp_tiny", weights=tmp_path / "m.weights.h5"), "m.weights.h5", reason)


def test_stored_datasets_pass(tmp_path):
    """Negative control: values that are in the file, compressed a little or not."""
    draw = np.random.default_rng(0)

    def fill(file):
        file["a"] = draw.normal(size=1000).astype("float32")
        file.create_dataset("b", data=np.arange(100_000), compression="gzip")

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        budgets.check_keras(keras_file(tmp_path / "m.keras", hdf5(fill), method))


@pytest.mark.parametrize("cut", [0, 10, 3000, -30])
def test_damaged_archives_are_refused(cut, tmp_path):
    """Empty, cut off, and with a changed byte in compressed weights: one line, not the error of the archive."""
    draw = np.random.default_rng(0).normal(size=2000).astype("float32")
    content = keras_file(
        tmp_path / "m.keras", hdf5(lambda file: file.create_dataset("a", data=draw)), zipfile.ZIP_DEFLATED
    )
    whole = content.read_bytes()
    content.write_bytes(whole[:cut])
    refused(lambda: zoo.load_model(content), "m.keras")
    content.write_bytes(whole[:400] + bytes([whole[400] ^ 0xFF]) + whole[401:])
    refused(lambda: zoo.load_model(content), "m.keras")
    np.savez_compressed(tmp_path / "a.npz", a=draw)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: cut or 4])
    refused(lambda: budgets.check_arrays(tmp_path / "a.npz"), "a.npz")


def npy(shape, content=b""):
    """The content of a .npy file of float32 that declares a shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize("shape", ["(1073741824,)", "(2, 1073741824)", "(9999999999999999,)", "(-4,)"])
def test_arrays_that_are_not_in_the_file_are_refused(shape, tmp_path):
    """A .npz and a .npy file that declare four gigabytes and more."""
    (tmp_path / "a.npy").write_bytes(npy(shape, bytes(64)))
    refused(lambda: budgets.check_arrays(tmp_path / "a.npy"), "a.npy", "declares")
    with zipfile.ZipFile(tmp_path / "samples.npz", "w") as file:
        file.writestr("inputs.npy", npy(shape, bytes(64)))
    refused(lambda: read_samples(tmp_path / "samples.npz"), "samples.npz", "declares")


def test_arrays_that_unpack_to_gigabytes_are_refused(tmp_path):
    """A .npz file of 350 MB of zeros; one of 20 MB is read."""
    for count, path in ((20, tmp_path / "small.npz"), (350, tmp_path / "large.npz")):
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
            file.open("inputs.npy", "w") as member,
        ):
            member.write(npy(f"({count << 18},)"))
            for _ in range(count):
                member.write(bytes(1 << 20))
    assert read_npz(tmp_path / "small.npz")["inputs"].shape == (20 << 18,)
    refused(lambda: read_samples(tmp_path / "large.npz"), "large.npz", "unpack to")


def test_large_safetensors_headers_are_refused(tmp_path):
    """A header of exabytes, and a tensor of gigabytes that is not in the file."""
    header = b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}'
    for content in (struct.pack("<Q", 1 << 60), struct.pack("<Q", len(header)) + header):
        (tmp_path / "m.safetensors").write_bytes(content + bytes(16))
        refused(
            lambda: read_safetensors(models["resnet18"], tmp_path / "m.safetensors", "m.safetensors"), "m.safetensors"
        )


def test_tables_of_billions_of_equal_cells_are_refused(tmp_path):
    """A Parquet file of kilobytes with 40 million rows; one of a million is read."""
    import pyarrow
    from pyarrow import parquet

    for rows in (1_000_000, 40_000_000):
        table = pyarrow.table({"x": pyarrow.DictionaryArray.from_arrays(np.zeros(rows, "int8"), ["a"])})
        parquet.write_table(table, tmp_path / f"{rows}.parquet")
    refused(lambda: read_rows(str(tmp_path / "40000000.parquet")), "40,000,000 rows")
    assert len(read_rows(str(tmp_path / "1000000.parquet"))) == 1_000_000


@pytest.mark.parametrize(("key", "value"), [
    ("model.options.widths", [99_999_999_999]),
    ("model.options.widths", [8] * 2000),
    ("model.options.width", 10**30),
    ("model.options.depth", 10**6),
    ("data.image_size", [100_000, 100_000]),
    ("data.train_size", [8, 10**30]),
    ("data.batch_size", 10**30),
    ("data.length", [10**12]),
    ("data.vocabulary", 10**12),
    ("data.augment.pad_crop", 10**30),
    ("epochs", 10**30),
    ("replicas", 10**30),
    ("optimizer.accumulate", 10**30),
    ("optimizer.learning_rate", 10**400),
    ("log.misclassified", 10**30),
    ("finetune.views", 10**30),
])  # fmt: skip
def test_large_values_of_a_recipe_are_refused(key, value):
    """One line that names the key, before anything is imported or built."""
    name = {"widths": "cnn", "depth": "vit_tiny_patch16_224"}.get(key.rpartition(".")[2], "resnet18")
    recipe = training.get_recipe("digits_mlp")
    overrides = {"model.name": name, "model.options": {}, key: value}
    refused(lambda: resolve(recipe, overrides.items()), key.rpartition(".")[2])
    resolve(recipe, {"model.name": name, "model.options": {}}.items())


@pytest.mark.parametrize("options", [
    {"classes": 9_999_999_999_999},
    {"input_shape": [100_000, 100_000, 3]},
    {"input_shape": [8, 10**30, 3]},
    {"width": 10**12},
    {"width": 10**400},
    {"depths": [10**9]},
])  # fmt: skip
def test_large_options_of_a_model_are_refused(options):
    """The options of `zoo export MODEL`, before TensorFlow is imported."""
    name = "convnext_tiny" if "depths" in options else "resnet18"
    refused(RegistryRequest(name, "random", options=options).check, next(iter(options)))
    RegistryRequest(name, "random", options={"classes": 1000}).check()


def test_large_options_of_a_format_are_refused():
    """A batch of a trillion examples; 32 pass."""
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Some(Options):
        batch: int = 1

    refused(lambda: parse_options("tflite", "batch=1000000000000", Some), "tflite:batch")
    assert parse_options("tflite", "batch=32", Some).batch == 32


def test_memory_is_compared_with_what_is_free():
    """More than a petabyte is refused, a byte is not."""
    assert 1 << 20 < budgets.available_memory() <= 1 << 44
    message = refused(lambda: budgets.require_memory(1e15, "a batch", "Lower data.batch_size."), "1,000,000.0 GB")
    assert message.endswith("Lower data.batch_size.")
    budgets.require_memory(1, "a byte", "")


def test_errors_of_memory_are_one_line():
    """Exhausted memory and deep nesting become errors of ours; other errors stay as they are."""
    assert "batch_size" in str(budgets.resource_error(MemoryError()))
    assert "nested" in str(budgets.resource_error(RecursionError("maximum recursion depth")))
    assert "batch_size" in str(budgets.resource_error(RuntimeError("RESOURCE_EXHAUSTED: Out of memory")))
    assert budgets.resource_error(ValueError("another")) is None


@pytest.mark.tensorflow
def test_errors_of_tensorflow_are_one_line():
    """Every error of an operation; exhausted memory names what to lower."""
    import tensorflow as tf

    assert "batch_size" in str(budgets.resource_error(tf.errors.ResourceExhaustedError(None, None, "OOM\nwhen")))
    message = str(budgets.resource_error(tf.errors.InvalidArgumentError(None, None, "a\nb")))
    assert "InvalidArgumentError: a b" in message


@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "options", "words"), [
    ("vgg16", {"classes": 10_000_000}, ("classes=10000000", "Lower classes", "logits")),
    ("cnn", {"widths": (3_000_000, 3_000_000)}, ("Lower widths",)),
])  # fmt: skip
def test_models_too_large_for_memory_are_refused_before_they_are_built(name, options, words):
    """By the bytes of their weights, with the options to lower; nothing is allocated."""
    zoo.get("mlp")  # TensorFlow is started
    # A model with half a gigabyte before its last layer; other tests run at the same time.
    refused(lambda: zoo.get(name, **options), "GB of memory", *words, seconds=3.0)


@pytest.mark.tensorflow
def test_large_models_that_fit_are_built():
    """Once without values, and once with them: they are those of any model, with its feature maps once."""
    model, small = (zoo.get("mlp", classes=classes) for classes in (100_000, 1))
    assert model.count_params() - small.count_params() == 99_999 * (model.layers[-1].input.shape[-1] + 1)
    assert abs(model.layers[-1].kernel.numpy()).max() > 0
    assert len(zoo.features("resnet_tiny", input_shape=(64, 64, 3)).outputs) > 1


@pytest.mark.tensorflow
def test_training_steps_too_large_for_memory_are_refused():
    """By the outputs of the layers of a batch; a batch that fits is not."""
    from zoo.common.footprint import output_bytes, require_training

    model = zoo.get("resnet18", input_shape=(224, 224, 3), classes=10)
    outputs = output_bytes(model, 1)
    assert outputs[0] == 224 * 224 * 3 * 4
    assert 30e6 < sum(outputs) < 300e6
    refused(lambda: require_training(model, 1_000_000), "batches of 1,000,000", "Lower data.batch_size")
    require_training(model, 2)
