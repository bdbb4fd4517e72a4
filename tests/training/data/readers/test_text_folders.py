"""Texts in folders, in columns of a table and as TFDS prepared them, in any encoding; what is left out or refused."""

from __future__ import annotations

import pytest
from loaded_data import one_line

from training import DataConfig
from training.data.readers.loading import load_dataset
from zoo.common.errors import DataError

REVIEWS = {"neg": ["What a bore.", "Never again!"], "pos": ["A joy, from start to end.", "See it. Twice."]}


def write_texts(root, classes=("poem", "prose"), count=10):
    """Write short texts into a folder for each class."""
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i:02d}.txt").write_text(f"{name} number {i}, größer\n", encoding="utf-8")
    return root


def texts(split):
    """Return the texts of a split with their labels."""
    return [(x.decode(), int(y)) for x, y in split.examples.as_numpy_iterator()]


def test_folder_of_texts(tmp_path):
    """Subfolders are the classes, split like folders of images; the content is text in UTF-8."""
    dataset = load_dataset(DataConfig("text_folder", path=str(write_texts(tmp_path))))
    assert (dataset.labels, dataset.shape, dataset.task) == (("poem", "prose"), (), "classify")
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 16, "validation": 2, "test": 2}
    found = sorted(pair for split in dataset.splits.values() for pair in texts(split))
    assert found == sorted(
        (f"{name} number {i}, größer\n", number) for number, name in enumerate(dataset.labels) for i in range(10)
    )


def test_folder_of_texts_with_splits(tmp_path):
    """train/ and test/ are used as splits, a tenth of train/ validates; fractions are then refused."""
    write_texts(tmp_path / "train")
    write_texts(tmp_path / "test", count=3)
    dataset = load_dataset(DataConfig("text_folder", path=str(tmp_path)))
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 18, "validation": 2, "test": 6}
    assert dataset.options == ("encoding",)


def test_bad_texts_stop(tmp_path):
    """Files that are no text are counted and named, and skipped on request."""
    write_texts(tmp_path)
    (tmp_path / "poem/03.txt").write_bytes(bytes(range(256)))
    (tmp_path / "prose/07.txt").write_bytes(b"\0\0")
    with pytest.raises(DataError) as error:
        load_dataset(DataConfig("text_folder", path=str(tmp_path)))
    message = one_line(error)
    assert "2 of 20" in message
    assert "poem/03.txt" in message
    assert "prose/07.txt" in message
    assert "--set data.skip_bad=true" in message
    dataset = load_dataset(DataConfig("text_folder", path=str(tmp_path), skip_bad=True))
    assert sum(split.count for split in dataset.splits.values()) == 18


def test_texts_in_other_encodings_and_without_words(tmp_path):
    """UTF-16 and cp1252 are read as Python reads them; a text without a word is unknown, or skipped. Both are said."""
    write_texts(tmp_path)
    (tmp_path / "poem/03.txt").write_bytes("Grüße – 5 €".encode("cp1252"))
    (tmp_path / "poem/04.txt").write_bytes("Grüße – 6 €".encode("utf-16"))
    (tmp_path / "prose/07.txt").write_text(" :-) \n")
    dataset = load_dataset(DataConfig("text_folder", path=str(tmp_path)))
    found = {text for split in dataset.splits.values() for text, _ in texts(split)}
    assert {"Grüße – 5 €", "Grüße – 6 €", " :-) \n"} < found
    assert [note for note in dataset.notes if "poem/03.txt" in note and "cp1252" in note]
    assert [note for note in dataset.notes if "prose/07.txt" in note and "unknown" in note]
    dataset = load_dataset(DataConfig("text_folder", path=str(tmp_path), skip_bad=True))
    assert sum(split.count for split in dataset.splits.values()) == 19
    assert [note for note in dataset.notes if "prose/07.txt" in note and "Left out" in note]
    with pytest.raises(DataError, match="texts in ascii"):
        load_dataset(DataConfig("text_folder", path=str(tmp_path), encoding="ascii"))


def test_missing_folder_of_texts(tmp_path):
    """A missing folder, missing classes and a class without texts are refused."""
    missing = ("", tmp_path / "none")
    for path, message in (*((p, "texts per class") for p in missing), (tmp_path, "two sub-folders")):
        with pytest.raises(DataError, match=message) as error:
            load_dataset(DataConfig("text_folder", path=str(path)))
        one_line(error)


def test_imdb_is_read_from_the_folder_of_its_archive(tmp_path):
    """aclImdb has neg and pos; unlabeled reviews are ignored, and the test reviews are those of test/."""
    for split in ("train", "test"):
        for name, reviews in REVIEWS.items():
            (tmp_path / f"aclImdb/{split}/{name}").mkdir(parents=True)
            for i, review in enumerate(reviews * 5):
                (tmp_path / f"aclImdb/{split}/{name}/{i}_9.txt").write_text(f"{review} {split} {i}")
    (tmp_path / "aclImdb/train/unsup").mkdir()
    (tmp_path / "aclImdb/train/unsup/0_0.txt").write_text("Who knows?")
    for path in (tmp_path, tmp_path / "aclImdb"):
        dataset = load_dataset(DataConfig("imdb", path=str(path)))
        assert dataset.labels == ("neg", "pos")
        assert {n: s.count for n, s in dataset.splits.items()} == {"train": 18, "validation": 2, "test": 20}
        assert all(" test " in text for text, _ in texts(dataset.splits["test"]))
        assert all(label == ("joy" in text or "Twice" in text) for text, label in texts(dataset.splits["train"]))


@pytest.mark.usefixtures("offline")
def test_imdb_that_is_missing(tmp_path):
    """One line names what to prepare."""
    with pytest.raises(DataError, match=r"tfds build imdb_reviews") as error:
        load_dataset(DataConfig("imdb", path=str(tmp_path)))
    one_line(error)


def prepare_reviews(folder, builder_name, config, keys, names, more):
    """Prepare a small TFDS dataset of texts in a folder, with a builder that is unregistered afterwards."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Reviews(tfds.core.GeneratorBasedBuilder):
            """Reviews with a class each."""

            name = builder_name
            VERSION = tfds.core.Version("1.0.0")
            pkg_dir_path = None
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version="1.0.0")] if config else []

            def _info(self):
                features = {key: tfds.features.Text() for key in (keys[0], *more)}
                features |= {keys[1]: tfds.features.ClassLabel(names=list(names))}
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=keys,
                    disable_shuffling=True,
                )

            def _split_generators(self, _):
                return {"train": self._generate_examples(10), "test": self._generate_examples(2)}

            def _generate_examples(self, times):
                pairs = [(text, label) for label, reviews in enumerate(REVIEWS.values()) for text in reviews]
                for i, (text, label) in enumerate(pairs * times):
                    yield i, {keys[0]: text, keys[1]: label} | dict.fromkeys(more, "of no use")

    Reviews(data_dir=folder).download_and_prepare()


NEWS = ("World", "Sports", "Business", "Sci/Tech")


@pytest.mark.parametrize(
    ("name", "builder", "config", "keys", "names", "more"),
    [
        ("imdb", "imdb_reviews", "plain_text", ("text", "label"), ("neg", "pos"), ()),
        ("imdb_reviews", "imdb_reviews", "plain_text", ("text", "label"), ("neg", "pos"), ()),
        ("ag_news_subset", "ag_news_subset", None, ("description", "label"), NEWS, ("title",)),
        ("of_nobody", "of_nobody", None, ("words", "mood"), ("sad", "glad"), ()),
    ],
)
def test_prepared_texts_of_tfds(name, builder, config, keys, names, more, tmp_path):
    """Texts that TFDS prepared are loaded by name: the zoo's own, listed ones and any other."""
    prepare_reviews(tmp_path, builder, config, keys, names, more)
    dataset = load_dataset(DataConfig(name, path=str(tmp_path)))
    assert (dataset.labels, dataset.shape, dataset.task) == (names, (), "classify")
    assert {n: s.count for n, s in dataset.splits.items()} == {"train": 36, "validation": 4, "test": 8}
    wanted = [(text, number) for number, reviews in enumerate(REVIEWS.values()) for text in reviews]
    assert texts(dataset.splits["test"]) == wanted * 2
    assert dataset.text is not None


def table_of_texts(tmp_path, rows, names=("review", "mood")):
    """Write a CSV file of texts and return a configuration."""
    import csv

    with open(tmp_path / "texts.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return {"name": "text_table", "path": str(tmp_path / "texts.csv")}


def test_table_of_texts(tmp_path):
    """A column of texts, quoted and over several lines, has classes or numbers as targets."""
    rows = [
        (f'"{text}", he said\n{i}', name) for name, reviews in REVIEWS.items() for text in reviews for i in range(5)
    ]
    dataset = load_dataset(DataConfig(**table_of_texts(tmp_path, rows)))
    assert (dataset.labels, dataset.task) == (("neg", "pos"), "classify")
    found = sorted((text, dataset.labels[n]) for split in dataset.splits.values() for text, n in texts(split))
    assert found == sorted(rows)
    scored = [(text, i / 2) for i, (text, _) in enumerate(rows)]
    dataset = load_dataset(DataConfig(**table_of_texts(tmp_path, scored)))
    assert (dataset.labels, dataset.task) == (("mood",), "regress")


def test_table_of_texts_needs_one_column(tmp_path):
    """With several columns, an option names the text column; an empty text is said with its row."""
    rows = [(i, text, name) for name, reviews in REVIEWS.items() for i, text in enumerate(reviews * 3)]
    config = table_of_texts(tmp_path, rows, ("id", "review", "mood"))
    with pytest.raises(DataError, match=r"one column of texts. Received: id, review") as error:
        load_dataset(DataConfig(**config))
    one_line(error)
    assert load_dataset(DataConfig(**config, columns=("review",))).splits["train"].count == 10
    config = table_of_texts(tmp_path, [*rows[:3], (3, " ", "neg"), *rows[3:]], ("id", "review", "mood"))
    (note,) = (note for note in load_dataset(DataConfig(**config, columns=("review",))).notes if "row 4 ''" in note)
    assert "learned as unknown" in note
    skipped = load_dataset(DataConfig(**config, columns=("review",), skip_bad=True))
    assert sum(split.count for split in skipped.splits.values()) == len(rows)
