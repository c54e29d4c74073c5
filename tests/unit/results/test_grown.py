"""Results of a store that grew: of the first sweep as they were, of a later one under its names, with observers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from netsim.results.gallery import gallery
from netsim.results.labelled import stored_arrays
from netsim.results.results import Results, load_results
from netsim.similarity import cka
from netsim.store.layout import row_parts
from netsim.store.run import Run
from netsim.store.stages import EMBED, INVERT, STAGES
from support.sweeps import TINY, new_run, run_all, tiny

OBSERVER = "seer=small:mobilenet@none"
LATER = tiny(
    networks=["new=small:wrn2@none", "eye=small:resnet18@none", "small:vgg"],
    observers=[OBSERVER, "small:shufflenet@none"],
    pairs={"count": 48, "shard_size": 8},
)
"""A network more and one less, another under a new name, one that only looks now, another that does, more pairs."""


@pytest.fixture(scope="module")
def later(finished, tmp_path_factory) -> Run:
    """A finished second sweep of a store whose first is that of `finished`."""
    url = tmp_path_factory.mktemp("grown") / "run"
    shutil.copytree(finished.url, url)
    run = new_run(str(url), LATER, label="later")
    run_all(run)
    return run


@pytest.fixture(scope="module")
def results(later) -> Results:
    return load_results(later)


def files_of(run: Run, folder: str) -> dict[str, bytes]:
    root = Path(run.url, folder)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---- an earlier sweep


def test_results_of_an_earlier_sweep_stay_what_they_were(finished, later):
    before, after = load_results(finished), load_results(Run.open(later.url, finished.sweep.id))
    xr.testing.assert_identical(stored_arrays(after), stored_arrays(before))
    assert (after.means, after.rows, after.columns) == (before.means, before.rows, before.columns)
    assert after.row_differences == before.row_differences
    assert (after.summaries, after.n, after.shards) == (before.summaries, 32, 4)
    for name, loss in before.loss.items():
        for each, value in vars(loss).items():
            np.testing.assert_array_equal(getattr(after.loss[name], each), value)


def test_files_of_an_earlier_sweep_stay_and_those_of_the_later_one_are_beside_them(finished, later):
    for kind in ("results", "report"):
        assert files_of(later, f"{kind}/{finished.sweep.id}") == files_of(finished, f"{kind}/{finished.sweep.id}")
        assert files_of(later, f"{kind}/{later.sweep.id}")
    earlier = Run.open(later.url, finished.sweep.id)
    assert [stage.name for stage in STAGES if stage.missing(earlier)] == []


def test_no_value_of_an_earlier_sweep_is_written_again(finished, later):
    """A later sweep with more pairs changes documents of arrays, and adds chunks and records."""
    for folder in ("commits", "inverted", "images", "pairs", "representations", "similarity", "weights"):
        before, after = files_of(finished, folder), files_of(later, folder)
        documents = {path for path in before if path.endswith("zarr.json")}
        assert {path for path in before if after[path] != before[path]} <= documents


# ---- a later sweep


def test_a_network_under_another_name_is_not_computed_again_and_is_shown_under_its_new_name(finished, later, results):
    assert later.sweep.shown == {
        "new": "new", "eye": "resnet18", "vgg": "vgg", "seer": "seer", "shufflenet": "shufflenet",
    }  # fmt: skip
    assert {name for name, _ in INVERT.units_done(later)} == {*finished.sweep.names, "new"}
    assert results.networks == ("new", "eye", "vgg") and results.observers == ("seer", "shufflenet")
    assert results.everyone == ("new", "eye", "vgg", "seer", "shufflenet")
    before = load_results(finished)
    assert results.summaries["eye"].weights_hash == before.summaries["resnet18"].weights_hash
    assert results.summaries["eye"].name == "eye"
    for each in ("initial", "final", "distance", "iterations"):
        first, longer = getattr(before.loss["resnet18"], each), getattr(results.loss["eye"], each)
        np.testing.assert_array_equal(longer[:32], first)
        assert len(longer) == results.n == 48
    images = later.array("inverted/resnet18/image")[:8]
    assert list(gallery(later).inverted) == ["new", "eye", "vgg"]
    np.testing.assert_allclose(gallery(later).inverted["eye"], images[gallery(later).pairs] / 65535, rtol=1e-6)


def test_every_cell_is_that_of_the_stored_representations(later, results):
    """Through (rows) and observers (columns) by their shown names, each from what it saw of all 48 pairs."""
    stored = later.sweep.shown
    for row, through in enumerate(results.networks):
        for kind, name in (("natural", "natural"), ("inverted", f"inverted/{stored[through]}")):
            looks = {each: later.array(f"representations/{name}/{stored[each]}")[...] for each in results.everyone}
            for column, observer in enumerate(results.everyone):
                if observer != through:
                    expected = cka.linear_cka(looks[through], looks[observer], "unbiased")
                    assert results.cells(kind)[row, column] == pytest.approx(expected, abs=1e-9)


def test_networks_that_only_look_are_in_no_mean_but_their_own(later, results):
    off = ~np.eye(3, dtype=bool)
    for kind in ("natural", "inverted"):
        cells = results.cells(kind)
        assert cells.shape == (3, 5)
        assert results.means[kind, "unbiased"].value == pytest.approx(cells[:, :3][off].mean())
        assert list(results.rows[kind, "unbiased"]) == ["new", "eye", "vgg"]
        assert results.rows[kind, "unbiased"]["eye"].value == pytest.approx(cells[1, [0, 2]].mean())
        assert results.columns[kind, "unbiased"]["seer"].value == pytest.approx(cells[:, 3].mean())
        assert results.columns[kind, "unbiased"]["vgg"].value == pytest.approx(cells[:2, 2].mean())
    assert not {"seer", "shufflenet"} & {name for pair in results.row_differences for name in pair}
    assert set(results.loss) == set(results.converged) == {"new", "eye", "vgg"}


def test_other_readers_open_the_matrices_and_the_representations_of_a_grown_store(later, results):
    stored = xr.open_zarr(later.url, group=f"results/{later.sweep.id}", consolidated=False)
    assert stored.through.values.tolist() == list(results.networks)
    assert stored.observer.values.tolist() == list(results.everyone)
    np.testing.assert_array_equal(stored.cka_unbiased.sel(set="inverted"), results.cells("inverted"))
    looks = xr.open_zarr(later.url, group="representations/natural", consolidated=False)
    assert looks.sizes["pair"] == 48 and set(looks) == {"new", "resnet18", "vgg", "seer", "shufflenet"}


# ---- observers alone, and two names in one sweep


def test_an_observer_changes_no_value_of_the_networks_it_looks_at(finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "run")
    run = new_run(str(tmp_path / "run"), tiny(observers=[OBSERVER]))
    assert run_all(run) == {
        "check": 0, "train": 1, "draw": 0, "invert": 0, "embed": 20, "aggregate": 4, "control": 3, "report": 1,
    }  # fmt: skip
    before, after = load_results(finished), load_results(run)
    xr.testing.assert_identical(stored_arrays(after).sel(observer=list(before.networks)), stored_arrays(before))
    assert (after.means, after.rows, after.row_differences) == (before.means, before.rows, before.row_differences)
    assert after.columns["natural", "biased"].items() >= before.columns["natural", "biased"].items()


def test_a_network_that_only_looked_joins_without_looking_again(later):
    """Its representations of all sets are there: what lacks is what the others see in its own images."""
    networks = [*LATER.networks, OBSERVER]
    run = new_run(later.url, LATER.model_copy(update={"networks": tuple(networks), "observers": ()}), label="joined")
    missing = EMBED.missing(run)
    assert {name.rpartition("/")[0] for name, _ in missing} == {"inverted/seer"} and len(missing) == 6
    assert {name for name, _ in INVERT.missing(run)} == {"seer"}


def test_two_names_of_one_network_in_one_sweep_are_equal_rows_and_columns(tmp_path):
    a, b = "a=small:vgg@none", "b=small:vgg@none"
    once = new_run(str(tmp_path / "run"), tiny(networks=[a, TINY["networks"][1]]), label="once")
    run_all(once)
    twice = new_run(once.url, tiny(networks=[a, TINY["networks"][1], b]), label="twice")
    assert run_all(twice) == dict.fromkeys((stage.name for stage in STAGES), 0) | {"report": 1}
    results, single = load_results(twice), load_results(once)
    assert results.networks == ("a", "resnet18", "b") and results.twins == (("a", "b"),)
    for kind in ("natural", "inverted"):
        cells, chosen = results.cells(kind), [0, 1, 0]
        np.testing.assert_array_equal(cells, single.cells(kind)[np.ix_(chosen, chosen)])
        assert results.means[kind, "unbiased"].value == pytest.approx(single.means[kind, "unbiased"].value)
        assert cells[0, 2] == 1
    np.testing.assert_array_equal(results.loss["b"].final, results.loss["a"].final)
    assert list(gallery(twice).inverted) == ["a", "resnet18", "b"]
    assert {row_parts(row)[1] for row, _ in STAGES[5].done(twice)} == {"a", "resnet18"}  # rows of `aggregate`
