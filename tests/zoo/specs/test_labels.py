"""Names of classes: complete, unique, in the order of the logits, with origin and license."""

from __future__ import annotations

from pathlib import Path

from zoo.specs import labels
from zoo.specs.labels import class_names

# Places and names of classes that libraries confuse or repeat, by their place in the order of the WordNet ids.
KNOWN = {
    0: "tench",
    134: "crane bird",
    281: "tabby cat",
    282: "tiger cat",
    285: "Egyptian Mau",
    517: "construction crane",
    638: "tights",
    639: "one-piece bathing suit",
    657: "missile",
    744: "projectile",
    836: "sunglass",
    837: "sunglasses",
    999: "toilet paper",
}


def test_names_of_imagenet():
    """There are 1,000 different names that people know, without a WordNet id."""
    names = class_names("imagenet-1k")
    assert (len(names), len(set(names))) == (1000, 1000)
    assert {place: names[place] for place in KNOWN} == KNOWN
    assert [name for name in names if name != name.strip() or not name or name[:3] in ("n01", "n02", "n03")] == []


def test_every_file_states_its_origin_and_license():
    """The comments of a file name where it comes from, and its license."""
    for file in labels.FILES.values():
        text = (Path(labels.__file__).parent / file).read_text(encoding="utf-8")
        assert "# Origin: " in text
        assert "license" in text
        assert "Copyright" in text


def test_other_data_sets_are_unknown():
    """The control: names are not invented."""
    assert class_names("imagenet-21k") is class_names(None) is None
