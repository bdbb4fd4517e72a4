"""Images that change while a model trains are named."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.tensorflow


def test_damaged_images_are_named(tmp_path, write_images):
    """An image that is cut off after the check, and the remedy; other errors stay as they are."""
    import training
    import zoo
    from training.data.pipeline.opening import open_pipeline
    from training.fit.reading import naming_files
    from training.recipe.recipe import resolve
    from zoo.common.errors import DataError

    root = write_images(tmp_path / "images", 40)
    changes = {"data.path": str(root), "data.image_size": [16, 16], "data.batch_size": 4}
    recipe = resolve(training.get_recipe("folder_cnn"), changes.items())
    pipeline = open_pipeline(recipe, zoo.spec(recipe.model.name))

    def read():
        examples = pipeline.dataset.splits["train"].examples
        return len(list(pipeline.encoder.decoded(examples)))

    with naming_files(pipeline, "Then resume."):
        assert read() == len(pipeline.dataset.files.splits["train"])
    bad = next(path for path in pipeline.dataset.files.splits["train"])
    bad.write_bytes(bad.read_bytes()[:40])
    reason = rf"1 that cannot be decoded any more: .*{bad.name} \(.*Then resume\."
    with pytest.raises(DataError, match=reason), naming_files(pipeline, "Then resume."):
        read()
    with pytest.raises(ValueError, match="another"), naming_files(pipeline, ""):
        raise ValueError("another")
    bad.unlink()
    with pytest.raises(DataError, match=bad.name), naming_files(pipeline, ""):
        read()
