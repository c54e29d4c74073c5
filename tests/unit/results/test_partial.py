"""A run that is not finished shows the rows that it has, with the numbers that they will have in the end."""

import json
import shutil

import numpy as np
import pytest

from netsim.errors import UnfinishedError
from netsim.results.partial import load_partial
from netsim.results.results import load_results
from netsim.store.run import Run
from support import grown
from support.sweeps import run_all


@pytest.fixture
def unfinished(finished, tmp_path) -> Run:
    """A copy of the finished run without the inverted row of vgg."""
    shutil.copytree(finished.url, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    for name, shard in run.done("aggregate"):
        if name.startswith("inverted/vgg/"):
            run.forget("aggregate", name, shard)
    return run


def test_rows_that_are_complete_have_the_values_of_the_finished_run(finished, unfinished):
    with pytest.raises(UnfinishedError):
        load_results(unfinished)
    partial, whole = load_partial(unfinished), load_results(finished)
    assert partial.networks == whole.networks and partial.n == whole.n
    assert partial.matrices["natural"].complete.tolist() == [True, True, True]
    assert partial.matrices["inverted"].complete.tolist() == [False, True, True]
    for name, matrix in partial.matrices.items():
        available = matrix.complete
        np.testing.assert_array_equal(matrix.cka[available], whole.cells(name)[available])
        np.testing.assert_allclose(matrix.se[available], whole.cells(name, kind="se")[available], atol=1e-12)
    assert np.isnan(partial.matrices["inverted"].cka[0]).all()


def test_what_is_missing_is_named_by_stage(unfinished):
    stages = {stage.name: (stage.done, stage.total) for stage in load_partial(unfinished).stages}
    assert stages["aggregate"] == (5, 6) and stages["invert"] == (12, 12) and "report" not in stages


def test_a_run_without_any_row_has_empty_matrices(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "commits" / "aggregate")
    partial = load_partial(Run.open(tmp_path / "run"))
    assert not any(matrix.available.any() for matrix in partial.matrices.values())


def test_a_row_is_complete_once_it_has_the_cells_of_observers_too(tmp_path):
    source, url = grown.write_images(tmp_path / "images.npz"), str(tmp_path / "run")
    networks = [grown.net(5), grown.net(6)]
    run_all(grown.ask(url, grown.settings(source, networks, 8)), only=grown.WORK)
    partial = load_partial(grown.ask(url, grown.settings(source, networks, 8, observers=[grown.net(7)])))
    assert (partial.networks, partial.observers) == (("net5", "net6"), ("net7",))
    for matrix in partial.matrices.values():
        assert matrix.available.tolist() == [[True, True, False]] * 2
        assert matrix.complete.tolist() == [False, False]
    assert partial.to_json()["observers"] == ["net7"]


def test_json_has_null_where_a_cell_is_missing(unfinished):
    content = json.loads(json.dumps(load_partial(unfinished).to_json(), allow_nan=False))
    assert content["finished"] is False
    assert content["inverted"]["cka_unbiased"][0] == [None, None, None]
    assert content["natural"]["cka_unbiased"][0][0] == 1
