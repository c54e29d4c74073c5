"""A network that only looks has the column it would have as an observer, and leaves nothing in the store."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.cli.tables import show_score
from netsim.errors import DataError, NetsimError, SettingsError, StoreError
from netsim.results.findings import with_error
from netsim.results.results import load_results
from netsim.score import score
from netsim.store.run import Run
from support.sweeps import new_run, run_all, tiny

SEER = "seer=small:mobilenet@none"


@pytest.fixture(scope="module")
def observed(finished, tmp_path_factory) -> Run:
    """The finished run with an observer."""
    url = tmp_path_factory.mktemp("observed") / "run"
    shutil.copytree(finished.url, url)
    run = new_run(str(url), tiny(observers=[SEER]))
    run_all(run)
    return run


def test_the_column_is_that_of_an_observer_to_the_last_bit(finished, observed):
    column, results = score(finished, SEER), load_results(observed)
    assert (column.name, column.reference, column.n, column.shards) == ("seer", "small:mobilenet@none", 32, 4)
    for kind, values in (("natural", column.natural), ("inverted", column.inverted)):
        cka, se = (results.cells(kind, kind=each)[:, results.everyone.index("seer")] for each in ("cka", "se"))
        for row, name in enumerate(results.networks):
            assert (values[name].value, values[name].se) == (cka[row], se[row])
        assert column.means[kind] == results.columns[kind, "unbiased"]["seer"]
    assert column.weights_hash == results.summaries["seer"].weights_hash


def test_controls_are_those_of_an_observer_to_the_last_bit(finished, observed):
    column, controls = score(finished, SEER), load_results(observed).controls
    for kind in ("natural_seed", "inverted_seed"):
        values = getattr(column, kind)
        for row, name in enumerate(finished.settings.names):
            assert values[name].value == controls.values[kind][row, -1]
            np.testing.assert_array_equal(values[name].se, controls.se(kind)[row, -1])
        expected = np.mean([value.value for value in values.values()])
        assert column.means[kind].value == pytest.approx(expected, abs=1e-12)
        assert column.to_json()[kind]["vgg"]["value"] == values["vgg"].value


def test_all_is_printed(finished, capsys):
    column = score(finished, SEER)
    show_score(column)
    out = " ".join(capsys.readouterr().out.split())  # lines are wrapped
    for value in (column.inverted["vgg"], column.inverted_seed["vgg"], column.natural_seed["shufflenet"]):
        assert with_error(value) in out
    assert f"inverted, seed-only {with_error(column.means['inverted_seed'])} (" in out


def test_every_set_is_looked_at_once(finished):
    looked = []
    score(finished, SEER, on_set=lambda: looked.append(1))
    assert len(looked) == 2 + 3


def test_the_difference_is_paired(finished):
    means = score(finished, SEER).means
    assert means["difference"].value == pytest.approx(means["natural"].value - means["inverted"].value)
    assert means["difference"].df == 3


def test_a_twin_is_named_and_left_out_of_means(finished):
    column = score(finished, "again=small:resnet18@none")
    assert column.twins == ("resnet18",) and column.natural["resnet18"].value == pytest.approx(1)
    others = [column.natural[name].value for name in ("vgg", "shufflenet")]
    assert column.means["natural"].value == pytest.approx(sum(others) / 2)


def test_nothing_is_written_even_where_writing_is_forbidden(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "run")
    folders = [tmp_path / "run", *(path for path in (tmp_path / "run").rglob("*") if path.is_dir())]
    before = sorted(str(path) for path in (tmp_path / "run").rglob("*"))
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert score(Run.open(tmp_path / "run"), SEER).n == 32
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert sorted(str(path) for path in (tmp_path / "run").rglob("*")) == before
    assert not os.path.exists(Path(finished.url, "networks", "seer.json"))


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("small:mobilenet", SettingsError, "small:mobilenet must have weights to look, got none; `netsim add` trains"),
        ("small:mobilnet@none", SettingsError, "did you mean 'mobilenet'"),
        ("x=torchvision:resnet18@none", NetsimError, "resnet18"),  # three channels
    ],
)
def test_a_network_that_cannot_look_is_refused(finished, reference, error, message):
    with pytest.raises(error, match=message):
        score(finished, reference)


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises((StoreError, DataError), match="is not finished"):
        score(new_run(str(tmp_path / "run"), tiny()), SEER)
