"""Files of arrays: equal to what NumPy reads, and one line for every kind of damage; nothing is unpickled."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from zoo.common.errors import BadOption, RunError
from zoo.reading.arrays import open_safetensors, read_npy, read_npz, read_safetensors
from zoo.reading.files import Refusal

ARRAYS = {
    "matrix": np.arange(12.0).reshape(3, 4).T,
    "texts": np.array(["ab", "c"]),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), "float32"),
    "scalar": np.float32(3),
    "large": np.arange(300_000, dtype="int64"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_that_were_written(tmp_path, save):
    """Any order, dtype and shape."""
    save(tmp_path / "arrays.npz", **ARRAYS)
    found = read_npz(tmp_path / "arrays.npz")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        np.save(tmp_path / "array.npy", array)
        assert np.array_equal(read_npy(tmp_path / "array.npy"), array)


def npy(header, content=b""):
    """A file of an array with a header of any text."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def packed(name, content, method=zipfile.ZIP_DEFLATED):
    """An archive with one member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


STATES = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
# (content of the array, part of the reason)
WRONG = [
    (npy(STATES % ("<f4", "(1073741824,)"), b"1234"), "declares an array of"),
    (npy(STATES % ("<f4", "(4611686018427387904,)"), b"1234"), "declares an array of"),
    (npy(STATES % ("<f4", "(-1,)"), b"1234"), "."),
    (npy(STATES % ("|O", "(1,)"), b"cos\nsystem\n(S'true'\ntR."), "no array of numbers or texts"),
    (npy(STATES % ("<c8", "(1,)"), b"12345678"), "no array of numbers or texts"),
    (npy("__import__('os').system('true')"), "."),
    (npy("{'descr': 3}"), "."),
    (b"\x93NUMPY\x09\x00", "."),
    (b"", "."),
    (b"text", "."),
]


@pytest.mark.parametrize(("content", "reason"), WRONG)
def test_wrong_headers_are_one_line(tmp_path, content, reason):
    """Of an array alone, and of one in an archive, within no memory and no time."""
    (tmp_path / "file.npy").write_bytes(content)
    (tmp_path / "file.npz").write_bytes(packed("x.npy", content))
    for read, name in ((read_npy, "file.npy"), (read_npz, "file.npz")):
        with pytest.raises(BadOption, match=reason) as caught:
            read(tmp_path / name, Refusal(error=BadOption))
        assert f"Received: {tmp_path / name}: " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_changed_bit_and_every_cut_is_one_line(tmp_path):
    """Or changes no value; members that unpack to more than a gigabyte are refused by what they state."""
    arrays = {name: array for name, array in ARRAYS.items() if name != "large"}
    np.savez_compressed(tmp_path / "arrays.npz", **arrays)
    whole, refused = (tmp_path / "arrays.npz").read_bytes(), 0
    draw = np.random.default_rng(0)
    for place in draw.integers(0, len(whole), 300):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.integers(8)
        for content in (bytes(flipped), whole[:place]):
            (tmp_path / "damaged.npz").write_bytes(content)
            found, message = {}, ""
            try:
                found = read_npz(tmp_path / "damaged.npz")
            except RunError as error:
                message = str(error)
            refused += bool(message)
            assert "\n" not in message
            assert all(np.array_equal(found[name], arrays[name]) for name in found if name in arrays)
    assert refused > 400
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(1 << 20))
    content = bytearray((tmp_path / "bomb.npz").read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24),):  # the size in the directory
        place = content.index(signature) + offset
        content[place : place + 4] = struct.pack("<I", 3 << 30)
    (tmp_path / "bomb.npz").write_bytes(content)
    with pytest.raises(RunError, match="unpack to 3,221,225,472"):
        read_npz(tmp_path / "bomb.npz")


def test_two_arrays_of_one_name_are_refused(tmp_path):
    """Members with and without the suffix are the same array."""
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        for name in ("x", "x.npy"):
            archive.writestr(name, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }"))
    with pytest.raises(RunError, match="two arrays have one name"):
        read_npz(tmp_path / "file.npz")


def test_damaged_safetensors_are_one_line(tmp_path):
    """A wrong header, a cut file, and a file of another kind."""
    from safetensors.numpy import save

    whole = save({"x": np.ones((2, 2), "float32")})
    header = b'{"x":{"dtype":"F32","shape":[2,9],"data_offsets":[0,16]}}'
    contents = [whole[:-1], whole[:20], b"", b"text", struct.pack("<Q", len(header)) + header + bytes(16)]
    contents += [struct.pack("<Q", 1 << 62) + whole[8:], struct.pack("<Q", 6000) + b"[" * 3000 + b"]" * 3000]
    for content in contents:
        (tmp_path / "file.safetensors").write_bytes(content)
        with pytest.raises(RunError) as caught, open_safetensors(tmp_path / "file.safetensors") as file:
            read_safetensors(file)
        assert "\n" not in str(caught.value)
    (tmp_path / "file.safetensors").write_bytes(whole)
    with open_safetensors(tmp_path / "file.safetensors") as file:
        assert read_safetensors(file)[0]["x"].sum() == 4
