"""Statistics over networks are computed from the cells of a run, of the networks that count."""

import shutil

import numpy as np
import pytest

from netsim.opened import open_run
from netsim.results.inference import MEANS
from netsim.results.matrices import groups_of, matrices
from netsim.results.results import load_results
from netsim.statistics.clusters import cluster_networks, map_networks
from netsim.statistics.mantel import mantel
from support.results import make_results, with_groups, with_inverted, with_summary
from support.sweeps import new_run, run_all, tiny


@pytest.fixture(scope="module")
def grouped(finished, tmp_path_factory):
    """The tiny sweep, with two networks of one group."""
    url = tmp_path_factory.mktemp("grouped") / "run"
    shutil.copytree(finished.url, url)
    replicates = [{"reference": f"small:{name}@none", "group": "residual"} for name in ("resnet18", "shufflenet")]
    run = new_run(str(url), tiny(networks=["small:vgg", *replicates]), label="grouped")
    assert {stage for stage, count in run_all(run).items() if count} == {"report"}
    return run


def test_means_rows_and_columns_are_those_of_the_results_with_a_second_error(finished):
    results = load_results(finished)
    inference = results.inference
    for name in MEANS:
        mean, crossed = results.means[name, "unbiased"], inference.means[name]
        assert crossed.value == pytest.approx(mean.value, abs=1e-12)
        assert crossed.images.se == pytest.approx(mean.se, abs=1e-12)
        assert crossed.networks.se > 0 and crossed.networks.df == 2
    for name in ("natural", "inverted"):
        for key, means in (("rows", results.rows), ("columns", results.columns)):
            for network, mean in means[name, "unbiased"].items():
                crossed = getattr(inference, key)[name][network]
                assert crossed.value == pytest.approx(mean.value, abs=1e-12)
                assert crossed.images.se == pytest.approx(mean.se, abs=1e-12)
    assert open_run(finished.url).results.inference.means == inference.means


def test_a_row_of_the_difference_is_that_of_both_matrices(finished):
    rows = load_results(finished).inference.rows
    for network, row in rows["difference"].items():
        assert row.value == pytest.approx(rows["natural"][network].value - rows["inverted"][network].value, abs=1e-12)


def test_means_are_over_cells_of_different_groups(grouped, finished):
    results, cells = load_results(grouped), load_results(finished).cells("inverted")
    assert groups_of(grouped) == results.groups == {"vgg": "vgg", "resnet18": "residual", "shufflenet": "residual"}
    assert np.argwhere(results.counted).tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]
    across = cells[[0, 0, 1, 2], [1, 2, 0, 0]]
    assert results.means["inverted", "unbiased"].value == pytest.approx(across.mean(), abs=1e-12)
    assert results.inference.means["inverted"].value == pytest.approx(across.mean(), abs=1e-12)
    assert results.rows["inverted", "unbiased"]["shufflenet"].value == cells[2, 0]
    assert set(results.row_differences) == {("vgg", "resnet18"), ("vgg", "shufflenet")}
    assert (matrices(grouped)["natural"].comparable == results.counted).all()


def test_the_ceiling_is_of_the_networks_of_one_group(grouped, finished):
    inference, cells = load_results(grouped).inference, load_results(finished).cells("inverted")
    assert inference.replicated and not load_results(finished).inference.replicated
    assert inference.ceiling["inverted"].value == pytest.approx((cells[1, 2] + cells[2, 1]) / 2, abs=1e-12)
    for name in ("natural", "inverted"):
        floor = load_results(grouped).controls.values[f"{name}_seed"][[0, 0, 1, 2], [1, 2, 0, 0]].mean()
        share = (inference.means[name].value - floor) / (inference.ceiling[name].value - floor)
        assert inference.normalized[name].value == pytest.approx(share, abs=1e-12)
    assert np.isnan(load_results(finished).inference.ceiling["natural"].value)


def test_networks_with_equal_weights_are_in_no_statistic():
    made = make_results(4, n=64)
    twins = with_summary(made, "resnet18", weights_hash=made.summaries["densenet"].weights_hash).inference
    assert (0, 3) in made.inference.asymmetry.pairs and (0, 3) not in twins.asymmetry.pairs
    cells = made.cells("inverted")
    assert twins.rows["inverted"]["densenet"].value == pytest.approx(cells[0, 1:3].mean())
    assert with_groups(made, *"abca").inference.replicated and not twins.replicated
    same = with_groups(with_summary(made, "resnet18", weights_hash=made.summaries["densenet"].weights_hash), *"abca")
    assert not same.inference.replicated and np.isnan(same.inference.ceiling["inverted"].value)


def test_a_network_that_only_looks_is_a_column():
    results = make_results(4, n=64, observers=("seer",))
    assert list(results.inference.rows["inverted"]) == list(results.networks)
    assert list(results.inference.columns["inverted"]) == [*results.networks, "seer"]
    seen = results.inference.columns["inverted"]["seer"]
    assert seen.value == pytest.approx(results.cells("inverted")[:, 4].mean()) and seen.networks.df == 3


def test_clusters_and_maps_are_of_both_matrices():
    results = make_results(5, n=64)
    for name in ("natural", "inverted"):
        cells = results.matrices[name]
        values = cells.cka[0], cells.leave_one_out[0]
        names, tree = results.inference.clusters[name]
        assert names == results.networks and tree.clusters == cluster_networks(*values).clusters
        _, places = results.inference.maps[name]
        assert np.array_equal(places.positions, map_networks(*values).positions)


def test_networks_with_undefined_values_are_in_no_cluster():
    results = with_inverted(make_results(5, n=64), 1, 2, np.nan)
    results = with_inverted(results, 3, 1, np.nan)
    names, _ = results.inference.clusters["inverted"]
    assert names == tuple(name for name in results.networks if name != "mobilenet")
    assert results.inference.clusters["natural"][0] == results.networks
    assert make_results(2, n=64).inference.clusters == make_results(2, n=64).inference.maps == {}


def test_natural_similarity_has_no_asymmetry_and_inverted_has():
    results = make_results(4, n=64)
    difference = results.inference.asymmetry.pairs[1, 2]
    cells = results.cells("inverted")
    assert difference.value == cells[1, 2] - cells[2, 1] and difference.df == 15
    assert mantel(cells, cells.T, ~np.eye(4, dtype=bool)).r < 1
