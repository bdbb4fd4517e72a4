"""Progress of training: metrics for people, lines of JSON for programs, and silence on request."""

from __future__ import annotations

import io
import json

import pytest

import training
from training.monitor.progress import ProgressDisplay, format_metrics
from training.recipe.docstrings import parse_metadata
from training.recipe.recipe import Recipe
from training.recipe.starter import read_recipe, write_starter
from zoo.common.errors import BadOption, UnknownName

SMALL = ("--set", 'model.options={"widths": [16]}', "--set", "epochs=2", "--set", "log.every=0")
ROW = {"epoch": 1, "loss": 1.5, "accuracy": 0.5, "val_loss": 2.0, "images_per_second": 1234.5, "data_wait": 0.071}


def test_json_is_one_line_an_epoch(tmp_path, zoo_command):
    """`zoo train --json` writes each epoch's row as it is stored, then the result, and nothing for people."""
    code, out, err = zoo_command("train", "digits_mlp", *SMALL, "--run", tmp_path / "run", "--json")
    assert (code, err) == (0, "")
    *rows, result = map(json.loads, out.splitlines())
    run = training.Run.open(tmp_path / "run")
    assert rows == run.metrics()
    assert result == {"run": str(run.path), **run.result()["test"]}
    assert all(0 <= row["data_wait"] <= 1 for row in rows)


def test_bar_shows_speed_and_wait():
    """On a terminal, the bar has epoch, metrics, examples/s, the fraction of time spent waiting, and the time left."""
    from rich.console import Console

    display = ProgressDisplay("digits", epochs=4, steps=10, batch_size=32, enabled=True)
    file = io.StringIO()
    display.console = display._bar.live.console = Console(file=file, force_terminal=True, width=160, highlight=False)
    display._bar.disable = False
    with display:
        display.start_epoch(0)
        display.step(0, 5, {"loss": 1.25, "accuracy": 0.75}, waited=0.0)
        display._bar.refresh()
        display.epoch(ROW)
    shown = file.getvalue()
    for part in ("digits", "1/4", "loss 1.2500", "accuracy 0.7500", "examples/s", "waits for data 0%", "left"):
        assert part in shown
    assert "epoch 1/4" in shown


def test_line_of_an_epoch():
    """Metrics have four decimals, speed and wait their units; missing values are left out."""
    assert format_metrics(ROW) == "loss 1.5000  accuracy 0.5000  val_loss 2.0000  1,234 examples/s  waits for data 7%"
    assert format_metrics({"epoch": 1, "loss": None}) == ""


def test_recipes_show_hardware_time_and_accuracy(zoo_command):
    """`zoo recipes` shows what the files document, marks published results, and prints all of it as JSON."""
    code, out, err = zoo_command("recipes")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "92.49% (published)" in lines["cifar10_resnet32"]
    assert "published: 2 GPUs" in lines["cifar10_resnet32"]
    assert "33 s of one core" in lines["word_order_encoder"]
    code, out, err = zoo_command("recipes", "cifar10_resnet32", "--json")
    (found,) = json.loads(out)
    assert found["metadata"]["command"].startswith("zoo train cifar10_resnet")
    assert (found["metadata"]["accuracy"], found["metadata"]["published"]) == ("92.49%", True)


def test_every_recipe_documents_its_result():
    """Each recipe has a command, hardware, a time and a result with a number in it."""
    from training.recipe.docstrings import recipe_metadata

    for name in training.list_recipes():
        if training._recipes.origin(name).startswith("training.recipes."):
            stated = recipe_metadata(name)
            assert all((stated.command, stated.hardware, stated.time, stated.result)), name


@pytest.mark.parametrize(
    ("result", "name", "accuracy", "published"),
    [
        ("test accuracy 0.91, 0.93 and 0.92 with seeds 1, 2 and 3, mean 0.92, on 360 images.", "a", "0.92", False),
        ("test accuracy 1.0000 on 143 images, seed 1.", "a", "1.0000", False),
        ("published: top-1 accuracy 76.4%. Not run here.", "a", "76.4%", True),
        ("published: 91.25% (20), 92.49% (32).", "net32", "92.49%", True),
        ("it learns.", "a", "", False),
    ],
)
def test_documented_results_are_read(result, name, accuracy, published):
    """The mean over seeds, else the first number, else that of the variant; a publication's is marked."""
    first, _, rest = result.partition(", ")
    source = (
        f'"""Title.\n\nCommand: zoo train a\nTime: 3 s.\nResult: {first},\n{rest}\n\nTime again.\n"""\nimport nothing'
    )
    source = source if rest else f'"""Title.\n\nResult: {result}\n"""'
    found = parse_metadata(source, name)
    assert (found.accuracy, found.published) == (accuracy, published)
    assert found.shown == accuracy + (" (published)" if published and accuracy else "")


def test_starter_file_trains_as_it_is(tmp_path, zoo_command):
    """`zoo new-recipe` writes TOML that holds every key; it trains, and changed keys change the recipe."""
    code, out, err = zoo_command("new-recipe", "mine", "--from", "digits_mlp", "--folder", tmp_path)
    path = tmp_path / "mine.toml"
    assert (code, out.strip(), err) == (0, str(path), "")
    assert read_recipe(path) == training.get_recipe("digits_mlp").override(name="mine")
    code, out, err = zoo_command("train", path, *SMALL, "--run", tmp_path / "run", "--quiet")
    assert (code, err) == (0, "")
    assert training.Run.open(tmp_path / "run").recipe.name == "mine"


def test_every_key_of_a_starter_can_be_uncommented(tmp_path):
    """With every key uncommented, the file is still TOML, and the same recipe."""
    for base in ("digits_resnet", "reverse_transformer"):
        path = write_starter("mine", base, tmp_path / base)
        found = path.read_text().splitlines()
        lines = [line[1:] if line.startswith("#") and line[1:2].isalpha() else line for line in found]
        lines = [line for line in lines if line.partition(" = ")[2] != "{}" or line.startswith("options")]
        path.write_text("\n".join(lines))
        assert "epochs = " in path.read_text()
        assert read_recipe(path) == training.get_recipe(base).override(name="mine")


def test_changed_keys_of_a_starter_count(tmp_path):
    """Keys of tables and nested tables are changed; options of the model are replaced as a whole."""
    path = tmp_path / "my recipe.toml"
    path.write_text(
        'base = "digits_mlp"\nepochs = 3\n[model]\noptions = { widths = [8] }\n[data.augment]\nflip = true\n'
        '[teacher]\nmodel = "resnet18"\n'
    )
    recipe = read_recipe(path)
    assert (recipe.name, recipe.epochs, recipe.model.options) == ("my_recipe", 3, {"widths": [8]})
    assert recipe.data.augment.flip
    assert recipe.teacher.model == "resnet18"
    assert recipe.optimizer == training.get_recipe("digits_mlp").optimizer


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("epochs = 3", 'needs a line base = "RECIPE"'),
        ('base = "digits_mpl"', "digits_mlp"),
        ('base = "digits_mlp"\nepoch = 3', "epochs"),
        ('base = "digits_mlp"\nepochs = "three"', "epochs"),
        ("base = ", "Expected a recipe in TOML"),
        ("\xff", "TOML"),
    ],
)
def test_bad_files_are_one_line(tmp_path, zoo_command, content, match):
    """Refuses invalid TOML, a missing base, and keys or values that cannot be."""
    path = tmp_path / "bad.toml"
    path.write_bytes(content.encode("latin-1"))
    code, out, err = zoo_command("train", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert match in err


def test_starter_never_replaces_a_file(tmp_path, zoo_command):
    """An existing file is unchanged; an unknown base is named."""
    write_starter("mine", "digits_mlp", tmp_path)
    before = (tmp_path / "mine.toml").read_bytes()
    code, out, err = zoo_command("new-recipe", "mine", "--folder", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (tmp_path / "mine.toml").read_bytes() == before
    with pytest.raises(UnknownName, match="digits_mlp"):
        write_starter("other", "digits_mpl", tmp_path)
    with pytest.raises(BadOption, match="name"):
        write_starter("../other", "digits_mlp", tmp_path)
    with pytest.raises(BadOption, match="Python file needs a name"):
        write_starter("my-net", "digits_mlp", tmp_path, python=True)


def test_python_starter_registers_the_recipe(tmp_path, python):
    """The Python file is a content file: importing it registers a recipe with the values of its base."""
    path = write_starter("mine", "digits_resnet", tmp_path, python=True)
    check = "import json, sys, mine, training; print(json.dumps(training.get_recipe('mine').to_json()))"
    out, err = python("-c", check, env={"PYTHONPATH": f"{tmp_path}:."}).communicate()
    assert Recipe.from_json(json.loads(out)) == training.get_recipe("digits_resnet").override(name="mine"), err
    assert path.read_text().count('"""') == 2
