"""Weights of repositories and local folders: the hub's own client with a hub on the loopback interface."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save

import zoo
from zoo.common.digests import digest
from zoo.common.errors import BadOption, DataError, UnknownName
from zoo.common.licenses import is_noncommercial
from zoo.specs.published import NameMapping, PublishedWeights
from zoo.specs.registry import models
from zoo.weights.configs import StoredModel, own_config, read_config
from zoo.weights.hub import fetch
from zoo.weights.references import parse_address

pytestmark = pytest.mark.tensorflow

STATE = {
    "stem.weight": np.arange(4 * 3 * 3 * 3, dtype="float32").reshape(4, 3, 3, 3),
    "logits.weight": np.arange(12, dtype="float32").reshape(3, 4),
    "logits.bias": np.array([5, 6, 7], "float32"),
}
TIMM = {
    "architecture": "hubnet_100",
    "num_classes": 3,
    "pretrained_cfg": {
        "tag": "a1_pets",
        "input_size": [3, 12, 12],
        "test_input_size": [3, 16, 16],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "test_crop_pct": 0.95,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.1],
        "label_names": ["n1", "n2", "n3"],
        "label_descriptions": {"n1": "cat", "n2": "dog"},
    },
}
CARD = b"---\nlicense: mit\ntags: [a]\n---\n# A model\n"


@pytest.fixture(autouse=True)
def hubnet():
    """A small model that timm calls hubnet_100, with one entry in its table that is not for commercial use."""
    from zoo.layers.blocks import conv

    weights = (
        PublishedWeights("timm/hubnet_100.best_in1k", 50.0),
        PublishedWeights("timm/hubnet_100.nc_in1k", 60.0, license="cc-by-nc-4.0"),
    )
    mappings = {"timm": NameMapping(((r"(.*)", "{0}"),))}

    @zoo.register_model("hubnet", zoo.ModelSpec((8, 8, 3), 3, 8), params=123, weights=weights, name_mappings=mappings)
    def hubnet(x, head, *, activation: str = "relu"):
        from zoo.common.lazy import keras

        return head(keras.layers.Activation(activation, name="act")(conv(x, 4, 3, name="stem")))

    yield
    models._entries.pop("hubnet", None)
    models._origins.pop("hubnet", None)


def timm_files(config=None, card=CARD, state=None):
    """The files of a repository of timm."""
    files = {"config.json": json.dumps(config or TIMM).encode(), "model.safetensors": save(state or STATE)}
    return files | ({"README.md": card} if card else {})


def changed(**values):
    """timm's config with other values of its pretrained_cfg."""
    return TIMM | {"pretrained_cfg": TIMM["pretrained_cfg"] | values}


def values(model):
    """The values of a model by layer and variable."""
    return {f"{n.name}/{v.name}": np.asarray(v).tolist() for n in model.layers for v in n.weights}


def check_timm(model):
    """Everything that the config says arrived in the model."""
    info = zoo.info(model)
    assert model.input_shape == (None, 12, 12, 3)
    assert model.output_shape == (None, 3)
    assert info.preprocessing == zoo.PreprocessingConfig((127.5, 102, 76.5), (51, 51, 25.5), "bicubic", 0.95)
    assert (info.input_size, info.labels) == ((16, 16), ("cat", "dog", "n3"))
    assert values(model)["logits/bias"] == [5, 6, 7]


def test_repository_of_timm(local_hub):
    """A name alone gives architecture, size, classes, preprocessing, labels, license, commit and digest."""
    commit = local_hub.publish("someone/pets", timm_files())
    model = zoo.get("hf://someone/pets")
    check_timm(model)
    info = zoo.info(model)
    assert (info.name, info.license, info.origin, info.revision) == ("hubnet", "mit", "hf://someone/pets", commit)
    assert info.sha256 == digest(fetch("someone/pets"))
    same = zoo.get("hubnet", weights="hf://someone/pets")
    assert (values(same), zoo.info(same)) == (values(model), info)
    with local_hub.down():
        assert values(zoo.get("hf://someone/pets")) == values(model)


def test_user_s_arguments_come_first(local_hub):
    """Classes and sizes of the user replace those of the repository; the head is random then, which a line says."""
    local_hub.publish("someone/pets2", timm_files())
    with pytest.warns(UserWarning, match="random"):
        model = zoo.get("hf://someone/pets2", classes=7, input_shape=(8, 8, 1))
    assert (model.input_shape, model.output_shape) == ((None, 8, 8, 1), (None, 7))
    assert zoo.info(model).labels is None
    with pytest.raises(BadOption, match="names its own weights"):
        zoo.get("hf://someone/pets2", weights="imagenet")


def test_revision(local_hub):
    """A revision is a branch or a commit, and other weights; a wrong one is refused in one line."""
    other = {**STATE, "logits.bias": np.array([8, 9, 10], "float32")}
    commit = local_hub.publish("someone/revised", timm_files())
    local_hub.publish("someone/revised", timm_files(state=other), branch="v2")
    assert values(zoo.get("hf://someone/revised@v2"))["logits/bias"] == [8, 9, 10]
    assert values(zoo.get(f"hf://someone/revised@{commit}"))["logits/bias"] == [5, 6, 7]
    with pytest.raises(DataError, match=r"weights='someone/revised@v3'.*resolve/v3/config.json to .*revised@v3.json"):
        zoo.get("hf://someone/revised@v3")


def test_local_folder_and_files_by_hand(local_hub, tmp_path):
    """A folder with the same files gives the same model, and so do files below $ZOO_HOME; the hub is not asked."""
    folder = tmp_path / "pets"
    folder.mkdir()
    for name, content in timm_files().items():
        (folder / name).write_bytes(content)
    for model in (zoo.get(str(folder)), zoo.get(folder), zoo.get("hubnet", weights=folder)):
        check_timm(model)
        assert zoo.info(model).license == "mit"
    by_hand = tmp_path / "zoo_home" / "me"
    by_hand.mkdir(parents=True)
    for name, suffix in (("model.safetensors", ".safetensors"), ("config.json", ".json")):
        shutil.copy(folder / name, by_hand / f"pets{suffix}")
    check_timm(zoo.get("hf://me/pets"))
    assert local_hub.requests == []
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"must hold model\.safetensors"):
        zoo.get(str(folder))


def test_model_and_tag(local_hub):
    """timm's "model.tag" is a name: one of the tables needs no config, another takes preprocessing from the hub's."""
    local_hub.publish("timm/hubnet_100.best_in1k", {"model.safetensors": save(STATE)})
    local_hub.publish("timm/hubnet_100.a1_pets", timm_files())
    known, unknown = zoo.get("hubnet_100.best_in1k"), zoo.get("hubnet_100.a1_pets")
    assert zoo.preprocessing(known) == zoo.spec("hubnet").weights[0].preprocessing
    assert (zoo.info(known).labels[281], zoo.info(known).labels_origin) == ("tabby cat", "imagenet-1k")
    assert zoo.info(unknown).preprocessing.mean == (127.5, 102, 76.5)
    assert (zoo.info(unknown).origin, zoo.info(unknown).license) == ("timm/hubnet_100.a1_pets", "mit")
    assert zoo.info(unknown).labels == ("cat", "dog", "n3")
    assert zoo.spec("hubnet_100.a1_pets") == zoo.spec("hf://timm/hubnet_100.a1_pets") == zoo.spec("hubnet")
    for ask in (zoo.get, zoo.spec):
        with pytest.raises(UnknownName):
            ask("hubnot_100.a1_pets")
    with pytest.raises(BadOption, match="pass model='hubnet'"):
        zoo.get("hubnet_100.a1_pets", weights="imagenet")


def test_repository_of_this_zoo(local_hub, tmp_path):
    """Options, preprocessing, labels, license and shape of a model of the zoo come back, and its values to the bit."""
    model = zoo.get("hubnet", classes=5, input_shape=(10, 10, 1), activation="tanh", preprocessing="unit")
    path = tmp_path / "model.safetensors"
    zoo.save_weights(model, path)
    info = zoo.info(model)
    config = own_config(StoredModel(info, 5, (10, 10, 1), digest(path)))
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": path.read_bytes()}
    local_hub.publish("me/own", files)
    again = zoo.get("hf://me/own")
    assert (again.input_shape, values(again)) == (model.input_shape, values(model))
    assert (zoo.info(again).options, zoo.preprocessing(again)) == (info.options, info.preprocessing)
    with pytest.raises(BadOption, match="activation"):
        zoo.get("hf://me/own", activation="relu")
    with pytest.raises(BadOption, match="made for hubnet"):
        zoo.get("resnet_tiny", weights="hf://me/own")
    tampered = bytearray(files["model.safetensors"])
    tampered[-1] ^= 1
    local_hub.publish("me/tampered", files | {"model.safetensors": bytes(tampered)})
    with pytest.raises(DataError, match=rf"must have the SHA-256 {digest(path)}"):
        zoo.get("hf://me/tampered")


def test_damaged_files_in_the_cache(local_hub):
    """A changed byte of a small or a large file in the cache is found, and the file is downloaded again."""
    local_hub.publish("me/damaged", timm_files())
    model = zoo.get("hf://me/damaged")
    for name in ("config.json", "model.safetensors"):
        blob = fetch("me/damaged", file=name).resolve()
        blob.write_bytes(blob.read_bytes()[:-1] + b" ")
        with pytest.raises(DataError, match="damaged and is now deleted"):
            zoo.get("hf://me/damaged")
        assert values(zoo.get("hf://me/damaged")) == values(model)


def test_cache_dir(local_hub, tmp_path):
    """Files go to the given cache, and come from it without the hub."""
    local_hub.publish("me/elsewhere", timm_files())
    zoo.get("hf://me/elsewhere", cache_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").glob("models--me--elsewhere/snapshots/*/model.safetensors"))
    assert not local_hub.cache.exists()
    with local_hub.down():
        check_timm(zoo.get("hf://me/elsewhere", cache_dir=tmp_path / "mine"))
        with pytest.raises(DataError, match=r"Download http\S+/me/elsewhere/resolve/main/config.json to \S+elsewhere"):
            zoo.get("hf://me/elsewhere")


def test_offline(local_hub, monkeypatch):
    """HF_HUB_OFFLINE uses what is cached, and names file and path of the rest; the hub is not asked."""
    from huggingface_hub import constants

    local_hub.publish("me/cached", timm_files(card=None))
    local_hub.publish("me/other", timm_files())
    check_timm(zoo.get("hf://me/cached"))
    local_hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_timm(zoo.get("hf://me/cached"))
    with pytest.raises(DataError, match=r"Download http\S+/me/other/resolve/main/config.json to \S+/me/other.json"):
        zoo.get("hf://me/other")
    assert local_hub.requests == []


def test_private_repository(local_hub, monkeypatch):
    """The client sends the user's token; without one, a private repository is an error in one line."""
    local_hub.publish("me/secret", timm_files())
    local_hub.private["me/secret"] = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(DataError, match="Weights cannot be downloaded") as error:
        zoo.get("hf://me/secret")
    assert "\n" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    check_timm(zoo.get("hf://me/secret"))


NC = b"---\nlicense: cc-by-nc-4.0\n---\n"
CASES = {
    "card": timm_files(card=NC),
    "config": timm_files(changed(license="cc-by-nc-sa-4.0"), card=None),
    "other": timm_files(card=b"---\nlicense: other\nlicense_name: acme-non-commercial\n---\n"),
}


@pytest.mark.parametrize("case", CASES)
def test_noncommercial_weights_need_an_acceptance(case, local_hub, monkeypatch):
    """The license of a card or a config is refused before the weights are downloaded, and accepted by a variable."""
    name = f"nc/{case}"
    local_hub.publish(name, CASES[case])
    with pytest.raises(BadOption, match=r"free for commercial use.*Pass --allow-noncommercial, or set ZOO_ALLOW"):
        zoo.get(f"hf://{name}")
    assert not [path for _, path in local_hub.requests if path.endswith("model.safetensors")]
    monkeypatch.setenv("ZOO_ALLOW_NONCOMMERCIAL", "1")
    model = zoo.get(f"hf://{name}")
    assert is_noncommercial(zoo.info(model).license)


def test_noncommercial_entry_and_file(local_hub, monkeypatch, tmp_path):
    """A published entry is refused before its download; a file made from such weights is refused too."""
    local_hub.publish("timm/hubnet_100.nc_in1k", {"model.safetensors": save(STATE)})
    with pytest.raises(BadOption, match=r"cc-by-nc-4\.0"):
        zoo.get("hubnet_100.nc_in1k")
    assert local_hub.requests == []
    monkeypatch.setenv("ZOO_ALLOW_NONCOMMERCIAL", "1")
    zoo.save_weights(zoo.get("hubnet_100.nc_in1k"), tmp_path / "mine.safetensors")
    monkeypatch.setenv("ZOO_ALLOW_NONCOMMERCIAL", "0")
    with pytest.raises(BadOption, match=r"cc-by-nc-4\.0"):
        zoo.get("hubnet", weights=tmp_path / "mine.safetensors")


def test_licenses():
    """The control: free licenses need no acceptance, and no license is no license of this kind."""
    free = ["apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "gpl-3.0", "ncsa", "openrail", None, ""]
    assert [name for name in free if is_noncommercial(name)] == []
    assert all(map(is_noncommercial, ["cc-by-nc-4.0", "CC-BY-NC-ND-4.0", "fair-noncommercial-research-license"]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "Expecting"),
        (b"[]", "must be a mapping"),
        (b"{}", "neither the library_name of the zoo nor an architecture"),
        (json.dumps(TIMM | {"architecture": "hubnet_200"}).encode(), "Did you mean 'hubnet"),
        (json.dumps(TIMM | {"model_args": {"act_layer": "x"}}).encode(), "act_layer"),
        (json.dumps(TIMM | {"num_classes": "ten"}).encode(), "num_classes"),
        (json.dumps(changed(std=[0, 1, 1])).encode(), "std"),
        (b'{"library_name": "keras-zoo", "info": {}}', "info"),
    ],
)
def test_config_that_cannot_be_read(content, reason, tmp_path):
    """Each is one line with the file."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        read_config(path, "model='x'")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [changed(crop_mode="squash"), TIMM | {"pretrained_cfg": {"tag": "x"}}])
def test_unknown_preprocessing_is_not_guessed(config, tmp_path):
    """A way to crop that the zoo lacks, or none stated, is unknown."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert read_config(path, "").info.preprocessing is None


@pytest.mark.parametrize("text", ["hf://", "hf://a", "hf://a/b@", "hf://a/../b", "hf://a b/c", "hf:///a/b"])
def test_invalid_addresses(text, local_hub):
    """Each is one line, and nothing is asked."""
    with pytest.raises(BadOption, match="hf://user/repository"):
        parse_address(text)
    with pytest.raises(BadOption, match="hf://user/repository"):
        zoo.get("hubnet", weights=text)
    assert local_hub.requests == []
