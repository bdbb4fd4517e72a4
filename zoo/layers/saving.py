"""Layers that are saved as Keras' own layers, so that a `.keras` file opens with Keras alone.

Such a layer computes the same function as the Keras layer that it extends, with a faster kernel and no option or state
of its own. Imports Keras.
"""

from __future__ import annotations

import copyreg
import json
from typing import Any, TypeVar

import keras

from zoo.common import compat
from zoo.reading.json_files import parse_json
from zoo.specs.info import INFO_KEY, ModelInfo

C = TypeVar("C", bound=type)

# The classes by name.
CLASSES: dict[str, type] = {}


class KernelType(type(keras.layers.Layer)):
    """Type of the classes that are saved as Keras' own: Keras reads `__module__`, pickle must not."""


def saved_as_keras(module: str) -> Any:
    """Return a decorator for a class that is saved under the name of the Keras class in `module`.

    Args:
        module: "keras.layers" or "keras.initializers".
    """

    def decorate(kind: C) -> C:
        kind.__module__ = module
        CLASSES[kind.__name__] = kind
        return kind

    return decorate


def _class_named(name: str) -> type:
    """Return the class that was pickled."""
    return CLASSES[name]


def _reduce_class(kind: type) -> tuple[Any, ...] | str:
    """Pickle a class by its name here; a subclass elsewhere is pickled by reference."""
    return (_class_named, (kind.__name__,)) if CLASSES.get(kind.__name__) is kind else kind.__qualname__


copyreg.pickle(KernelType, _reduce_class)


class KernelLayer(metaclass=KernelType):
    """Base of the layers that are saved as Keras' own; pickling restores the layer of this zoo."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, super().__reduce__()


def _unpickle(restore: Any, arguments: tuple[Any, ...]) -> Any:
    """Restore a pickled layer as the class of this zoo instead of Keras' own."""
    with keras.saving.custom_object_scope(CLASSES):
        return restore(*arguments)


TAG = "zoo_info"  # attribute of symbolic outputs


# Keras' class has no public name.
Functional = compat.functional_class()


@keras.saving.register_keras_serializable("zoo", "ZooModel")
class ZooModel(Functional):
    """A functional keras.Model with the info of its architecture and weights.

    It is saved as Keras' own functional model with one key more in its configuration, which Keras ignores: the file
    opens with Keras alone, then without the info.
    """

    # There is no __init__: which arguments Keras takes for those of a functional model depends on its version.
    @property
    def zoo_info(self) -> ModelInfo | None:
        """What the model is; a clone has that of its original, a model made from parts none."""
        return self._zoo_info if hasattr(self, "_zoo_info") else getattr(self.outputs[0], TAG, None)

    @zoo_info.setter
    def zoo_info(self, info: ModelInfo | None) -> None:
        self._zoo_info = info

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the functional model, with the info."""
        return super().get_config() | ({INFO_KEY: self.zoo_info.to_json()} if self.zoo_info else {})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ZooModel:
        """Return the model of a configuration; its weights are random."""
        config = dict(config)
        info = config.pop(INFO_KEY, None)
        model = super().from_config(config, custom_objects)
        model.zoo_info = None if info is None else ModelInfo.from_json(info)
        return model

    def save_weights(self, filepath: Any, *arguments: Any, **options: Any) -> None:
        """Save the weights; a `.weights.h5` file has the info in an attribute of its root."""
        super().save_weights(filepath, *arguments, **options)
        if self.zoo_info and str(filepath).endswith(".weights.h5"):
            write_h5_info(filepath, self.zoo_info)

    def __reduce__(self) -> tuple[Any, ...]:
        _, arguments = super().__reduce__()
        return compat.unpickle_model, arguments


# The file names Keras' class next to the registered name: Keras alone takes the class, and the zoo the registered one.
ZooModel.__module__, ZooModel.__name__, ZooModel.__qualname__ = (
    Functional.__module__,
    Functional.__name__,
    Functional.__qualname__,
)


def _tag(model: ZooModel, outputs: Any) -> None:
    """Tag the symbolic outputs of a run through the graph: `clone_model` makes its model of nothing else."""
    if model.zoo_info is not None:
        for output in keras.tree.flatten(outputs):
            if isinstance(output, keras.KerasTensor):
                setattr(output, TAG, model.zoo_info)


compat.after_graph_run(ZooModel, _tag)


def with_info(model: Any, info: ModelInfo | None) -> ZooModel:
    """Return a functional model over the same layers that carries an info."""
    return make_model(model.input, model.output, model.name, info)


def make_model(inputs: Any, outputs: Any, name: str, info: ModelInfo | None) -> ZooModel:
    """Return a functional model that carries an info."""
    model = ZooModel(inputs, outputs, name=name)
    model.zoo_info = info
    return model


def info_of(model: Any) -> ModelInfo | None:
    """Return the info of a model, or of the model inside it that takes its input; None if there is none."""
    info = getattr(model, "zoo_info", None)
    if info is not None:
        return info
    inside = [layer for layer in getattr(model, "layers", ()) if not isinstance(layer, keras.layers.InputLayer)]
    return info_of(inside[0]) if inside and hasattr(inside[0], "layers") else None


def write_h5_info(path: Any, info: ModelInfo) -> None:
    """Write an info into the root of an HDF5 file."""
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs[INFO_KEY] = json.dumps(info.to_json())


def read_h5_info(file: Any) -> ModelInfo | None:
    """Return the info in the root of an open HDF5 file, None if there is none; raises ValueError."""
    text = file.attrs.get(INFO_KEY)
    return None if text is None else ModelInfo.from_json(parse_json(text))
