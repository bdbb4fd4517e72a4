"""Names of models and weights: "hf://user/repository", a local folder, and timm's "model.tag"."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from zoo.common.errors import BadOption, RunError, UnknownName, did_you_mean
from zoo.reading.json_files import read_json
from zoo.specs.registry import models

SCHEME = "hf://"
CONFIG = "config.json"
# A revision may have a slash in the names of pull requests alone.
ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@(refs/(?:pr|convert)/[\w.-]+|[\w.-]+))?(?:/([\w.+=,/-]+))?")


@dataclasses.dataclass(frozen=True)
class HubAddress:
    """An address on the hub, "hf://user/repository@revision/path".

    Args:
        repository: "user/repository".
        revision: a branch, a tag or a commit; "" for "main".
        path: a path in the repository; "" for the whole.
    """

    repository: str
    revision: str = ""
    path: str = ""

    @property
    def source(self) -> str:
        """The repository with its revision, as `zoo.weights.hub.fetch` takes it."""
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


def is_address(text: str) -> bool:
    """Return whether a text is meant as an address on the hub."""
    return text.startswith(SCHEME)


def parse_address(text: str) -> HubAddress:
    """Return the parts of an address; raises BadOption for another text."""
    match = ADDRESS.fullmatch(text)
    if match is None or ".." in text:
        raise BadOption(
            f"An address on the hub must be hf://user/repository or hf://user/repository@revision. Received: {text!r}"
        )
    return HubAddress(*(part or "" for part in match.groups()))


def is_repository(text: str) -> bool:
    """Return whether a text is an address on the hub, or a local folder with the same content."""
    if is_address(text):
        return True
    try:
        return (Path(text) / CONFIG).is_file() and not is_transformers_folder(Path(text))
    except (OSError, ValueError):  # not a valid path, such as one that is too long
        return False


def is_transformers_folder(folder: Path) -> bool:
    """Return whether a local folder is one of transformers or sentence-transformers."""
    try:
        return "model_type" in read_json(folder / CONFIG, dict)
    except RunError:
        return False


def timm_names() -> dict[str, str]:
    """Return the registered name of each model of timm that the tables have; most names are the same."""
    own = {name: name for name in models.names() if "timm" in models[name].name_mappings}
    sources = ((name, w.source) for name in models.names() for w in models[name].spec.weights)
    published = {s.split("/")[1].partition(".")[0]: name for name, s in sources if s.startswith("timm/")}
    return own | published


def by_timm_name(name: str) -> str:
    """Return the registered name of a model of timm; raises UnknownName if there is none."""
    known = timm_names()
    if name not in known:
        raise UnknownName(
            f"Expected a model of timm that is registered. Received: {name!r}. {did_you_mean(name, known)}"
        )
    return known[name]


def split_tag(text: str) -> tuple[str, str] | None:
    """Return the registered name and the published weights of timm's "model.tag"; None for another text."""
    name, dot, tag = text.partition(".")
    known = timm_names() if dot and tag and "/" not in text else {}
    return (known[name], f"timm/{text}") if name in known else None
