"""Push a run or artifacts to a repository of the hub, in one commit with a model card."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from export.publishing.bundle import gather
from export.publishing.card import model_card
from training.runs.run import Run
from zoo.common.errors import BadOption, DataError
from zoo.common.lazy import hub
from zoo.weights.hub import CARD
from zoo.weights.references import HubAddress, parse_address


@dataclasses.dataclass(frozen=True)
class PushOptions:
    """How to push; see `export.push`."""

    private: bool | None = None
    revision: str = ""
    create_pr: bool = False
    license_name: str = ""


@dataclasses.dataclass(frozen=True)
class Pushed:
    """A commit on the hub.

    Args:
        address: "hf://user/repository@commit", for `zoo.get` and `export.load`.
        url: address of the commit, or of the pull request, in a browser.
        files: the files of the commit.
        license: identifier of the license; None if it is not known.
    """

    address: str
    url: str
    files: tuple[str, ...]
    license: str | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON-safe values."""
        return dataclasses.asdict(self) | {"files": list(self.files)}


def push_source(source: Run | str | os.PathLike[str], to: str, options: PushOptions) -> Pushed:
    """Push a run or artifacts; see `export.push`."""
    address = parse_address(to)
    if address.path or (address.revision and options.revision):
        raise BadOption(
            f"A push needs hf://user/repository, with at most one branch. Received: {to!r}, "
            f"revision={options.revision!r}. Leave the rest out."
        )
    with tempfile.TemporaryDirectory() as scratch:
        place = source if isinstance(source, Run) else Path(source)
        bundle = gather(place, options.license_name, Path(scratch))
        card = model_card(bundle, f"hf://{address.repository}")
        files = {CARD: card.encode(), **bundle.files}
        branch = options.revision or address.revision
        commit = _upload(address, files, dataclasses.replace(options, revision=branch))
    pushed = f"hf://{address.repository}@{commit.oid}"
    return Pushed(pushed, commit.pr_url or str(commit.commit_url), tuple(sorted(files)), bundle.license)


def _upload(address: HubAddress, files: dict[str, Any], options: PushOptions) -> Any:
    """Create the repository and the branch if needed, and upload the files in one commit."""
    operations = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
    api, repository = hub.HfApi(), address.repository
    try:
        api.create_repo(repository, private=options.private, exist_ok=True)
        if options.revision and not options.create_pr:
            api.create_branch(repository, branch=options.revision, exist_ok=True)
        where = {"revision": options.revision or None, "create_pr": options.create_pr}
        return api.create_commit(repository, operations, commit_message="Upload by keras-zoo", **where)
    except Exception as error:  # The client passes on any exception of its transport.
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"The hub must accept the upload. Received: hf://{repository}: {reason} Sign in with `hf auth login` or "
            "HF_TOKEN, and check the name and the connection."
        ) from error
