"""Safetensors files: read those of the zoo, timm and torchvision, and write those of the zoo."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np
from zoo.layers.lazy import saving
from zoo.reading.arrays import open_safetensors
from zoo.reading.arrays import read_safetensors as read_arrays
from zoo.reading.files import Refusal
from zoo.reading.json_files import parse_json
from zoo.specs.info import ModelInfo
from zoo.specs.published import NameMapping
from zoo.specs.registry import Model
from zoo.weights.keras_models import patch_grids
from zoo.weights.names import check_made_for
from zoo.weights.source import WeightsSource
from zoo.weights.transformers_folder import folder_info, folder_sizes

FORMAT = {"format": "keras-zoo"}


def read_safetensors(entry: Model, path: Path, received: str) -> WeightsSource:
    """Read a file with our layer names, or with those of timm or torchvision.

    Raises:
        BadOption: the file is damaged, or the model has no name mapping for it.
    """
    arrays, metadata = _read(path, received)
    if metadata.get("format") == FORMAT["format"] or any("/" in key for key in arrays):
        info = _info(metadata, received)
        check_made_for(entry, info.name if info else metadata.get("model", entry.spec.name), received)
        grids = re.findall(r"(\w+)=(\d+)x(\d+)", metadata.get("grids", ""))
        sizes = {layer: (int(rows), int(cols)) for layer, rows, cols in grids}
        return WeightsSource(received, arrays, grids=sizes, info=info)
    mappings = [mapping for library, mapping in entry.name_mappings.items() if library != "keras"]
    if not mappings:
        raise BadOption(
            f"{entry.spec.name} cannot load files of timm or torchvision. Received: {received}. "
            "Pass a file of zoo.save_weights."
        )
    found = [(mapping, _arranged(arrays, mapping, received)) for mapping in mappings]
    name_mapping, arrays = max(found, key=lambda pair: pair[0].coverage(_modules(pair[1])))
    if not entry.spec.vocabulary:
        return WeightsSource(received, arrays, name_mapping, "torch")
    info, sizes = folder_info(entry.spec, path.parent), folder_sizes(entry.spec, path.parent)
    return WeightsSource(received, arrays, name_mapping, "torch", info=info, classes=sizes[0], input_shape=sizes[1])


def _arranged(arrays: Mapping[str, Any], mapping: NameMapping, received: str) -> dict[str, Any]:
    """Return the arrays of a file under the keys that a name mapping describes.

    Args:
        arrays: values by key.
        mapping: the name mapping; see its `renamed` and `joined`.
        received: the user's argument, for messages.

    Raises:
        BadOption: two arrays have one key, or parts of a module do not fit each other.
    """
    found: dict[str, Any] = {}
    for key, array in arrays.items():
        name = _renamed(key, mapping)
        if name in found:
            raise BadOption(f"weights must have one array for each name. Received: {received} with two of {name}.")
        found[name] = array
    for rule in mapping.joined:
        found = _joined(found, *rule, received)
    return found


def _renamed(key: str, mapping: NameMapping) -> str:
    for pattern, replacement in mapping.renamed:
        key = re.sub(rf"^{pattern}", replacement, key)
    return key


def _joined(
    arrays: dict[str, Any], pattern: str, replacement: str, parts: tuple[str, ...], received: str
) -> dict[str, Any]:
    """Return the arrays with those of each whole set of parts joined along their outputs, the first axis."""
    rest, sets = dict(arrays), {}
    for key in arrays:
        module, _, variable = key.rpartition(".")
        match = re.fullmatch(pattern, module)
        if match:
            sets.setdefault((match.expand(replacement), variable), {})[match.groups()[-1]] = key
    for (module, variable), keys in sets.items():
        if set(keys) != set(parts):
            continue  # loading reports what is missing
        try:
            rest[f"{module}.{variable}"] = np.concatenate([rest.pop(keys[part]) for part in parts])
        except ValueError as error:
            raise BadOption(f"weights must fit together. Received: {received}: {', '.join(keys.values())}") from error
    return rest


def _modules(arrays: Collection[str]) -> set[str]:
    return {key.rpartition(".")[0] for key in arrays}


def _read(path: Path, received: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arrays and the metadata of a file."""
    refusal = Refusal("weights must be a readable safetensors file", BadOption, "Use another file.", received)
    with open_safetensors(path, refusal) as file:
        arrays, metadata = read_arrays(file)
        return {key: _float32(array) for key, array in arrays.items()}, dict(metadata)


def _info(metadata: dict[str, str], received: str) -> ModelInfo | None:
    """Return the info in a file's metadata, None if there is none."""
    text = metadata.get(saving.INFO_KEY)
    if text is None:
        return None
    try:
        return ModelInfo.from_json(parse_json(text))
    except ValueError as error:
        raise BadOption(f"weights must have readable metadata. Received: {received}: {error}") from error


def _float32(array: Any) -> Any:
    """Return floats of lower precision as float32, other arrays unchanged."""
    return array if array.dtype.kind in "iub" or array.dtype == "float64" else array.astype("float32")


def write_weights(model: Any, path: Path) -> None:
    """Write the weights of a keras.Model as safetensors with our layer names; see `zoo.save_weights`."""
    from safetensors.numpy import save

    arrays = {
        f"{layer.name}/{variable.name}": keras.ops.convert_to_numpy(variable)
        for layer in model.layers
        for variable in layer.weights
    }
    if path.suffix != ".safetensors":
        raise BadOption(f"path must end in .safetensors. Received: path={str(path)!r}")
    if not path.parent.is_dir():
        raise BadOption(f"path must be in an existing folder. Received: path={str(path)!r}")
    temporary = path.with_name(f".{path.name}.writing")
    try:
        grids = (f"{layer}={rows}x{columns}" for layer, (rows, columns) in patch_grids(model.layers).items())
        info = saving.info_of(model)
        metadata = FORMAT | {"model": info.name if info else model.name, "grids": " ".join(grids)}
        metadata |= {saving.INFO_KEY: json.dumps(info.to_json())} if info else {}
        temporary.write_bytes(save(arrays, metadata=metadata))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
