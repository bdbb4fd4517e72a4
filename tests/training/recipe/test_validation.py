"""Every field of a recipe is validated when the recipe is made, in one line and without TensorFlow."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest

from training import (
    AugmentConfig,
    DataConfig,
    FinetuneConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    RegularizeConfig,
    ScheduleConfig,
    TeacherConfig,
)
from training.common.registries import is_dataset
from training.recipe.keys import SYNONYMS, all_keys
from training.recipe.limits import OPTIMIZERS
from training.recipe.recipe import recipes
from training.recipe.rules import SCHEDULE_KEYS
from training.recipe.starter import read_recipe
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, UnknownName, ZooError

NAN, INF = float("nan"), float("inf")
# An invalid value for each field of each config, and its message.
BAD = [
    ("name", "../x", "name must be letters"),
    ("model.name", "resnet_tyni", "Did you mean 'resnet_tiny'"),
    ("model.options", {"dropot": 0.1}, "dropot"),
    ("model.options.stem", 3, "stem"),
    ("model.weights", "imagnet", "model.weights='imagnet'"),
    ("model.weights", "imagenet", "has no such weights"),
    ("data.name", "digts", "Did you mean 'digits'"),
    ("data.path", 3.5, None),
    ("data.batch_size", 0, "from 1 to"),
    ("data.image_size", [8], "[height, width]"),
    ("data.image_size", [8, 0], "[height, width]"),
    ("data.train_size", [8, 8, 8], "[height, width]"),
    ("data.channels", 2, "one of 0, 1, 3"),
    ("data.length", [1, 2, 3], "[source tokens, target tokens]"),
    ("data.length", [0], "at least 1"),
    ("data.vocabulary", -1, "from 0 to"),
    ("data.tokenizer", "wordpeice", "Did you mean 'wordpiece'"),
    ("data.skip_bad", "yes", "true or false"),
    ("data.max_pixels", -1, "from 0"),
    ("data.near_duplicates", 17, "from 0 to 16"),
    ("data.augment.flip", 1, "true or false"),
    ("data.augment.shift", 2, "from 0 to 1"),
    ("data.augment.rotate", -1, "from 0 to 180"),
    ("data.augment.zoom", 1, "from 0 to 0.99"),
    ("data.augment.fill", "reflct", "Did you mean 'reflect'"),
    ("data.augment.pad_crop", -1, "from 0"),
    ("data.augment.crop_scale", [5, -1], "[smallest, largest], above 0 and up to 1"),
    ("data.augment.crop_scale", [0.1], "[smallest, largest]"),
    ("data.augment.crop_scale", [0.5, NAN], "finite"),
    ("data.augment.crop_ratio", [1.5, 0.5], "[smallest, largest]"),
    ("data.augment.crop_ratio", [], "[smallest, largest]"),
    ("data.augment.brightness", -0.1, "from 0 to 1"),
    ("data.augment.contrast", 2, "from 0 to 1"),
    ("data.augment.saturation", 2, "from 0 to 1"),
    ("data.augment.hue", 0.6, "from 0 to 0.5"),
    ("data.augment.noise", 2, "from 0 to 1"),
    ("data.augment.rand_augment", 15, "from 0 to 14"),
    ("data.augment.magnitude", 11, "from 0 to 10"),
    ("data.augment.trivial_augment", "on", "true or false"),
    ("data.augment.erase", 2, "from 0 to 1"),
    ("data.augment.mixup", -1, "from 0 to 100"),
    ("data.augment.cutmix", 101, "from 0 to 100"),
    ("data.augment.repeats", 0, "from 1 to 64"),
    ("data.augment.place", "devce", "Did you mean 'device'"),
    ("data.preprocessing.mean", [], "mean"),
    ("data.preprocessing.std", [0], "above 0"),
    ("data.preprocessing.interpolation", "cubic", "interpolation"),
    ("data.preprocessing.crop", 2, "crop"),
    ("data.preprocessing.bits", 17, "from 8 to 16"),
    ("data.preprocessing.channel_order", "gbr", "channel_order"),
    ("data.preprocessing.background", [300], "background"),
    ("data.normalize", "z-score", "Did you mean 'zscore'"),
    ("data.split_fractions", [0.8, 0.3], "add up to 1"),
    ("data.split_seed", -1, "from 0"),
    ("data.stratify", "no", "true or false"),
    ("data.target", 3.5, None),
    ("data.task", "clasify", "Did you mean 'classify'"),
    ("data.target", ["a", "a"], "different target columns"),
    ("data.tasks", {"age": "regress"}, "must name some of several data.target"),
    ("data.columns", ["a", "a"], "different feature columns"),
    ("data.decimal", ";", "decimal must be one of"),
    ("data.date_order", "year", "date_order must be one of"),
    ("data.missing", 3, "must be a list of texts"),
    ("data.encoding", 8, None),
    ("data.header", "maybe", "header must be one of"),
    ("optimizer.name", "adamm", "Did you mean 'adam'"),
    ("optimizer.learning_rate", -1, "from 0"),
    ("optimizer.learning_rate", INF, "finite"),
    ("optimizer.momentum", 2, "from 0 to 1"),
    ("optimizer.nesterov", 1, "true or false"),
    ("optimizer.weight_decay", 2, "from 0 to 1"),
    ("optimizer.clip_norm", -1, "from 0"),
    ("optimizer.clip_each", -1, "from 0"),
    ("optimizer.clip_value", -1, "from 0"),
    ("optimizer.beta_1", 0.9, "sgd has no beta_1"),
    ("optimizer.beta_2", 1, "from 0 to"),
    ("optimizer.epsilon", 2, "from 0 to 1"),
    ("optimizer.rho", 0.9, "sgd has no rho"),
    ("optimizer.layer_decay", 2, "from 0 to 1"),
    ("optimizer.accumulate", 0, "from 1"),
    ("optimizer.ema", 1, "from 0"),
    ("schedule.name", "cosin", "Did you mean 'cosine'"),
    ("schedule.warmup_epochs", 10, "less than epochs=10"),
    ("schedule.end", 2, "from 0 to 1"),
    ("schedule.milestones", [3, 2], "increasing epochs above 0"),
    ("schedule.period", 2, "does not use schedule.period"),
    ("schedule.factor", 0.1, "does not use schedule.factor"),
    ("schedule.power", 2, "does not use schedule.power"),
    ("loss.name", "crossentropy", "Did you mean 'cross_entropy'"),
    ("loss.label_smoothing", 1, "from 0 to 0.99"),
    ("loss.gamma", 1, "loss.gamma applies to loss.name=focal"),
    ("loss.delta", 2, "loss.delta applies to loss.name=huber"),
    ("loss.class_weight", [1, -1], "at least 0"),
    ("loss.class_weight", [0, 0], "not all of them 0"),
    ("loss.balanced", "yes", "true or false"),
    ("loss.heads", {"aux": -1}, "loss.heads.aux"),
    ("loss.heads", {"aux": "1"}, "loss.heads.aux"),
    ("regularize.l1", -1, "from 0"),
    ("regularize.l2", -1, "from 0"),
    ("regularize.dropout", 1, "from 0"),
    ("regularize.spatial_dropout", 1, "from 0"),
    ("regularize.drop_connect", 1, "from 0"),
    ("regularize.drop_path", 1, "from 0"),
    ("regularize.spectral_norm", 1, "true or false"),
    ("regularize.patience", -1, "from 0"),
    ("finetune.stages", ["head", "all"], "one milestone less than stages"),
    ("finetune.milestones", [5], "one milestone less than stages"),
    ("finetune.learning_rates", [0.1], "one number above 0 for each stage"),
    ("finetune.views", -1, "from 0"),
    ("finetune.freeze_batch_norm", "yes", "one of auto, on, off"),
    ("teacher.run", "", "either a run or a registered model"),
    ("teacher.model", "resnet20", "either a run or a registered model"),
    ("teacher.weights", 3.5, None),
    ("teacher.temperature", 0, "from 0.001"),
    ("teacher.alpha", 2, "from 0 to 1"),
    ("teacher.beta", 1, "each needs the other"),
    ("teacher.features", [0], "stages from 1"),
    ("teacher.hard", 1, "true or false"),
    ("log.every", -1, "from 0"),
    ("log.histograms", -1, "from 0"),
    ("log.misclassified", -1, "from 0"),
    ("log.profile", [3, 2], "[first step, last step]"),
    ("epochs", 0, "from 1"),
    ("seed", -1, "from 0"),
    ("precision", "float16", "Did you mean 'mixed_float16'"),
    ("strategy", "mirored", "Did you mean 'mirrored'"),
    ("replicas", -1, "from 0"),
    ("jit", "yes", "one of auto, on, off"),
    ("save", "bst", "Did you mean 'best'"),
    ("checkpoint_seconds", -1, "from 0"),
    ("checkpoint_steps", -1, "from 0"),
]
STAGES = {"finetune.stages": ["head", "all"], "finetune.milestones": [4]}
BASE = Recipe("test", teacher=TeacherConfig(run="runs/teacher"))
TABLES = {
    "model": ModelConfig,
    "data": DataConfig,
    "data.augment": AugmentConfig,
    "data.preprocessing": PreprocessingConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "loss": LossConfig,
    "finetune": FinetuneConfig,
    "regularize": RegularizeConfig,
    "teacher": TeacherConfig,
    "log": LogConfig,
}


def one_line(error, key):
    """Check that a message is one line that names the key's last part and what was received."""
    message = str(error.value)
    assert "\n" not in message
    assert "Received: " in message
    assert key.rpartition(".")[2] in message
    return message


def test_the_table_covers_every_field():
    """Every field has an invalid value."""
    assert {key for key in all_keys(Recipe) if key not in TABLES} == {key for key, _, _ in BAD} - {"model.options.stem"}


@pytest.mark.parametrize(("key", "value", "message"), [row for row in BAD if row[2]])
def test_bad_value_is_refused_when_the_recipe_is_made(key, value, message):
    """An override, and the same recipe as JSON, give one line."""
    with pytest.raises(ZooError) as error:
        BASE.override(**{key: value})
    assert message in one_line(error, key)


@pytest.mark.parametrize(("key", "value", "message"), [row for row in BAD if "options." not in row[0]])
def test_bad_value_is_refused_in_python(key, value, message):
    """The constructors also refuse it, so that every Recipe is valid. Numbers for texts are refused here only."""
    *parents, name = key.split(".")
    with pytest.raises(ZooError) as error:
        dataclasses.replace(BASE, **_nested(BASE, parents, name, value))
    assert (message or "must be a text") in one_line(error, key)


def _nested(owner, parents, name, value):
    """Return the change of a field, through the configs that it is in."""
    if not parents:
        return {name: tuple(value) if isinstance(value, list) else value}
    inner = getattr(owner, parents[0]) or PreprocessingConfig()
    return {parents[0]: dataclasses.replace(inner, **_nested(inner, parents[1:], name, value))}


@pytest.mark.parametrize(
    ("key", "value"), [(k, v) for k, v, m in BAD if m and not isinstance(v, dict) and k[:7] != "teacher"]
)
def test_bad_value_in_toml_is_refused(tmp_path, key, value):
    """A recipe in a TOML file is refused too."""
    table, _, name = key.rpartition(".")
    text = json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")
    (tmp_path / "mine.toml").write_text(f'base = "digits_mlp"\n{f"[{table}]" if table else ""}\n{name} = {text}\n')
    if key in ("name", "optimizer.beta_1", "schedule.warmup_epochs"):
        return  # These are valid in this base, or named by the file.
    with pytest.raises(ZooError) as error:
        read_recipe(tmp_path / "mine.toml")
    one_line(error, key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule.name": "step"}, "needs schedule.milestones or schedule.period"),
        ({"schedule.name": "step", "schedule.period": 2, "schedule.milestones": [1]}, "and not both"),
        ({"schedule.name": "inverse_sqrt"}, "needs a warm-up"),
        ({"schedule.name": "one_cycle", "schedule.warmup_epochs": 1}, "its own warm-up"),
        ({"optimizer.name": "momentum", "optimizer.momentum": 0}, "needs momentum"),
        ({"optimizer.clip_norm": 1, "optimizer.clip_value": 1}, "at most one kind"),
        ({"optimizer.name": "lion", "optimizer.epsilon": 0.1}, "lion has no epsilon"),
        ({"loss.class_weight": [1, 2], "loss.balanced": True}, "loss.class_weight or loss.balanced"),
        ({"data.augment.repeats": 8, "data.batch_size": 4}, "data.augment.repeats=8, data.batch_size=4"),
        ({"data.normalize": "zscore", "data.preprocessing.std": [2]}, "Leave one out"),
        ({"data.preprocessing.channel_order": "bgr"}, "Save the weights with zoo.save_weights"),
        ({"data.target": "a", "data.columns": ["a", "b"]}, "without the target"),
        ({"model.name": "mlp", "model.options.dropout": 0.1, "regularize.dropout": 0.1}, "given twice"),
        ({"regularize.spectral_norm": True, "optimizer.ema": 0.9}, "Leave one out"),
        ({**STAGES, "finetune.milestones": [10]}, "below epochs=10"),
        ({**STAGES, "finetune.milestones": [0]}, "above 0"),
        ({**STAGES, "finetune.learning_rates": [0.1, 0]}, "above 0 for each stage"),
        ({**STAGES, "schedule.warmup_epochs": 4}, "a stage of 4 epochs"),
        ({**STAGES, "optimizer.name": "lbfgs"}, "stochastic optimizer"),
        ({**STAGES, "finetune.views": 1}, "needs the images"),
        ({**STAGES, "finetune.views": 2, "teacher": None}, "without augmentation"),
        ({"finetune.stages": ["all"], "finetune.views": 1}, "needs a stage of the head"),
        ({"strategy": "one", "replicas": 2}, "Use strategy=mirrored"),
        ({"teacher.run": "", "teacher.model": "resnet_tyni"}, "teacher.model='resnet_tyni'"),
        ({"teacher.run": "", "teacher.model": "resnet50", "teacher.weights": ""}, "needs weights"),
        ({"teacher.features": [1, 1], "teacher.beta": 1}, "different stages"),
    ],
)
def test_contradictions_are_refused(changes, message):
    """Fields that do not go together are refused when the recipe is made."""
    with pytest.raises(ZooError) as error:
        BASE.override(**changes)
    assert message in one_line(error, "")


@pytest.mark.parametrize("name", recipes.names())
def test_every_registered_recipe_is_valid(name):
    """The control: all registered recipes are valid."""
    assert Recipe.from_json(recipes[name].to_json()) == recipes[name]


@pytest.mark.parametrize("name", ["Adam", "SGD", "momentum", "lbfgs", "LBFGS"])
def test_optimizers_are_named_in_any_case(name):
    """As `make_optimizer` takes them."""
    assert BASE.override(**{"optimizer.name": name}).optimizer.name == name


def test_lbfgs_ignores_the_schedule():
    """Schedules do not apply to it, so its epochs may be fewer than those of the warm-up."""
    assert BASE.override(**{"optimizer.name": "lbfgs", "schedule.warmup_epochs": 20}).epochs == 10


@pytest.mark.tensorflow
def test_the_table_of_optimizers_is_what_keras_has():
    """Each optimizer that `make_optimizer` accepts is in the table with its options, and no other."""
    import keras

    from training.optim.optimizer import MOMENTS, keras_class

    found = {}
    for name, cls in inspect.getmembers(keras.optimizers, inspect.isclass):
        own = issubclass(cls, keras.optimizers.Optimizer) and cls is not keras.optimizers.Optimizer
        if own and "weight_decay" in inspect.signature(cls).parameters:
            found[name.lower()] = inspect.signature(keras_class(name)).parameters
    found["muon"] = inspect.signature(keras_class("muon")).parameters
    assert {n: tuple(m for m in MOMENTS if m in p or f"adam_{m}" in p) for n, p in found.items()} == dict(OPTIMIZERS)


def test_the_table_of_schedules_is_that_of_the_schedules():
    """Each schedule that is made has its keys in the table, and no other."""
    from training.optim.schedules import SCHEDULES

    assert set(SCHEDULES) == set(SCHEDULE_KEYS)


@pytest.mark.tensorflow
def test_datasets_of_tfds_are_known():
    """Every dataset of the installed TFDS passes, with a config, a version or a namespace; other names do not."""
    import tensorflow_datasets as tfds

    assert all(map(is_dataset, tfds.list_builders()))
    assert is_dataset("imdb_reviews/plain_text")
    assert is_dataset("mnist:3.0.1")
    assert is_dataset("huggingface:squad")
    assert not is_dataset("digts")
    assert BASE.override(**{"data.name": "mine", "data.path": "somewhere"}).data.name == "mine"


def test_validation_needs_no_tensorflow(printed):
    """Names of models, datasets, optimizers and weights are checked in a process without TensorFlow, Keras or NumPy."""
    code = (
        "import json, sys\nfrom training import Recipe\nfound = []\n"
        "for change in ({'optimizer.name': 'adamm'}, {'data.name': 'digts'}, {'model.name': 'resnet_tyni'},\n"
        "               {'model.weights': 'x'}, {'data.augment.crop_scale': [5, -1]}, {'optimizer.lr': 1}):\n"
        "    try:\n        Recipe('t').override(**change)\n"
        "    except Exception as error:\n        found.append(type(error).__name__)\n"
        "heavy = sorted({'tensorflow', 'keras', 'numpy', 'tensorflow_datasets'} & set(sys.modules))\n"
        "print(json.dumps([found, heavy]))"
    )
    found, heavy = printed("-c", code)
    assert found == ["BadOption", "UnknownName", "UnknownName", "BadOption", "BadOption", "BadOption"]
    assert heavy == []


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("optimiser.lr", "optimizer.learning_rate"),
        ("bs", "data.batch_size"),
        ("optimizer.batch_size", "data.batch_size"),
        ("optimizer.wd", "optimizer.weight_decay"),
        ("optimizer.eps", "optimizer.epsilon"),
        ("model.nam", "model.name"),
        ("model.pretrained", "model.weights"),
        ("warmup", "schedule.warmup_epochs"),
        ("scheduler.name", "schedule.name"),
        ("dropout", "regularize.dropout"),
        ("max_epochs", "epochs"),
        ("data.augment.mix_up", "data.augment.mixup"),
        ("data.augment.hflip", "data.augment.flip"),
        ("aug.flip", "data.augment.flip"),
        ("loss.smoothing", "loss.label_smoothing"),
        ("Seed", "seed"),
        ("log.mistakes", "log.misclassified"),
    ],
)
def test_keys_of_other_libraries_name_ours(key, nearest):
    """Synonyms, abbreviations and keys without their table, or in a wrong one, suggest the right key."""
    with pytest.raises(BadOption) as error:
        BASE.override(**{key: 1})
    assert f"Did you mean '{nearest}'?" in one_line(error, key)


@pytest.mark.parametrize("key", ["zzz", "optimizer.qqqq"])
def test_no_key_is_suggested_for_nonsense(key):
    """A key unlike all others suggests none."""
    with pytest.raises(BadOption, match="Known: "):
        BASE.override(**{key: 1})


def test_synonyms_lead_to_keys():
    """Each synonym maps to the last part of a key, and is no key itself."""
    parts = {key.rpartition(".")[2] for key in all_keys(Recipe)}
    assert set(SYNONYMS.values()) <= parts
    assert not set(SYNONYMS) & parts


def test_unknown_dataset_and_model_are_unknown_names():
    """They raise UnknownName, like lookups in a registry."""
    for key in ("data.name", "model.name"):
        with pytest.raises(UnknownName):
            BASE.override(**{key: "digts"})
