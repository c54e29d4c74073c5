"""Fixtures of the tests of images: random numbers, and one image set in each format, on disk and in object storage."""

import numpy as np
import pytest

from support.image_formats import FORMATS, Made
from support.seaweed import BUCKET


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def local(tmp_path_factory) -> dict[str, tuple[Made, str]]:
    """Format -> what reading it must give, and its folder. Read it only."""
    root = tmp_path_factory.mktemp("formats")
    return {
        name: (make(root / name, np.random.default_rng([3, position])), str(root / name))
        for position, (name, make) in enumerate(FORMATS.items())
    }


@pytest.fixture(scope="session")
def remote(local, object_storage) -> dict[str, tuple[Made, str]]:
    """Format -> what reading it must give, and its URL. Read it only."""
    filesystem = object_storage.filesystem()
    for name, (_, root) in local.items():
        filesystem.put(f"{root}/", f"{BUCKET}/formats/{name}/", recursive=True)
    return {name: (made, f"s3://{BUCKET}/formats/{name}") for name, (made, _) in local.items()}
