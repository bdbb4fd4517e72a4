"""Small images with several labels each, as VOC and TFDS store them, and their labels after loading."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def picture(number, size=(20, 24)):
    """Return an image filled with a number, as JPEG bytes."""
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 10 * number, "uint8")).save(file, "JPEG", quality=95)
    return file.getvalue()


def annotation(objects):
    """Return VOC's XML of objects (kind, difficult)."""
    parts = "".join(
        f"<object><name>{kind}</name><difficult>{int(difficult)}</difficult><bndbox><xmin>1</xmin></bndbox></object>"
        for kind, difficult in objects
    )
    return f"<annotation><folder>VOC2007</folder>{parts}</annotation>"


def marks(dataset, split):
    """Return the labels of each image of a split by the number that fills it."""
    found = {}
    for image, target in dataset.splits[split].examples.as_numpy_iterator():
        number = round(float(np.asarray(Image.open(io.BytesIO(image))).mean()) / 10)
        found[number] = {dataset.labels[i]: int(target[i]) for i in np.flatnonzero(target)}
    return found


def prepare(folder, builder_name, version, features, examples, config=None):
    """Prepare a small TFDS dataset in a folder, with a builder that is unregistered afterwards."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Small(tfds.core.GeneratorBasedBuilder):
            """A few examples."""

            name = builder_name
            VERSION = tfds.core.Version(version)
            pkg_dir_path = None
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version=version)] if config else []

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
                )

            def _split_generators(self, _):
                return {name: enumerate(part) for name, part in examples.items()}

            def _generate_examples(self):
                """Unused."""

    Small(data_dir=folder).download_and_prepare()


def pixels(number):
    """Return an image filled with a number."""
    return np.full((20, 24, 3), 10 * number, "uint8")
