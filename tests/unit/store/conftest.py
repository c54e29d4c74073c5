"""Fixtures that tests of the store share: a new run, on every kind of storage."""

import uuid

import pytest

from netsim.store.documents import create_arrays
from netsim.store.run import Run
from support.seaweed import BUCKET
from support.sweeps import new_run
from unit.store.definitions import IMAGE, LOSS, SETTINGS, WHOLE


@pytest.fixture(params=["path", "memory", "s3"])
def url(request, tmp_path):
    """Location of a new store, once for each kind of storage."""
    if request.param == "path":
        return str(tmp_path / "run")
    if request.param == "s3":
        request.getfixturevalue("object_storage")
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def run(url: str) -> Run:
    """Create a new run that has the arrays of `definitions`."""
    run = new_run(url, SETTINGS)
    create_arrays(run, [LOSS, IMAGE, WHOLE])
    return run
