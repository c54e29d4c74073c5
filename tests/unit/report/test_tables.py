"""Tables hold the numbers of the results in full precision."""

import csv
import io
import itertools

import numpy as np
import pytest

from netsim.report.page import tables_of
from netsim.report.tables import (
    asymmetry_csv,
    clusters_csv,
    columns_csv,
    controls_csv,
    layers_csv,
    losses_csv,
    map_csv,
    matrix_csv,
    means_csv,
    networks_csv,
    row_differences_csv,
    row_minus_column_csv,
    rows_csv,
    variances_csv,
    verdict_csv,
)
from netsim.results.findings import probability_of
from netsim.results.layers import LayerSimilarity, LayerSpec
from netsim.results.results import Results
from netsim.statistics.multiple import holm
from support.pages import Page, page_of
from support.results import make_results, with_groups, with_verdict


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


@pytest.fixture(scope="module")
def files(results) -> dict[str, bytes]:
    return tables_of(results, {}, {})


@pytest.fixture(scope="module")
def page(results) -> Page:
    return page_of(results)


def test_tables_read_back_as_the_very_numbers(results, files):
    for kind in ("natural", "inverted"):
        lines = read(files[f"{kind}.csv"])
        cells = list(itertools.product(results.networks, results.networks))
        assert [(line["through"], line["observer"]) for line in lines] == cells
        expected = {"cka": ("biased", "cka"), "cka_se": ("biased", "se")}
        expected |= {"cka_unbiased": ("unbiased", "cka"), "cka_unbiased_se": ("unbiased", "se")}
        cells = {column: results.cells(kind, estimator, kind=key) for column, (estimator, key) in expected.items()}
        for column, values in (cells | {"floor": results.floor(kind)}).items():
            np.testing.assert_array_equal([float(line[column]) for line in lines], values.ravel())
        assert {line["n"] for line in lines} == {"64"}
    losses = read(files["losses.csv"])
    assert [(line["through"], int(line["pair"])) for line in losses] == [
        (m, k) for m in results.networks for k in range(64)
    ]
    for column, name in (("initial_loss", "initial"), ("final_loss", "final"), ("distance", "distance")):
        expected = np.concatenate([getattr(results.loss[network], name) for network in results.networks])
        np.testing.assert_array_equal([float(line[column]) for line in losses], expected)
    networks = read(files["networks.csv"])
    assert [line["weights_hash"] for line in networks] == [
        results.summaries[name].weights_hash for name in results.networks
    ]
    assert [line["converged"] for line in networks] == ["true"] * 3


def test_rows_are_held_against_each_other_on_the_page_and_in_the_tables(results, page, files):
    table = next(table for table in page.tables if table[0][0] == "inverted through")
    assert table[0][2:] == ["− mobilenet", "− resnext"]
    for row, (name, mean, *cells) in enumerate(table[1:]):
        assert name == results.networks[row]
        assert mean.startswith(f"{results.rows['inverted', 'unbiased'][name].value:.3f}")
        assert [bool(cell) for cell in cells] == [other > row for other in (1, 2)]
    lines = read(files["row_differences.csv"])
    assert [(line["through"], line["minus"]) for line in lines] == list(results.row_differences)
    first = results.row_differences["densenet", "mobilenet"]
    assert [float(lines[0][key]) for key in ("mean", "se", "low", "high", "p_value")] == [
        first.value, first.se, *first.interval, first.p_value,
    ]  # fmt: skip
    adjusted = holm([difference.p_value for difference in results.row_differences.values()])
    assert [float(line["p_value_holm"]) for line in lines] == adjusted.tolist()
    shown = [cell for line in table[1:] for cell in line[2:] if cell]
    assert [cell.rpartition("Holm: p ")[2] for cell in shown] == [probability_of(p) for p in adjusted]
    rows = read(files["rows.csv"])
    assert [(row["set"], row["through"]) for row in rows] == [
        (kind, name) for kind in ("natural", "inverted") for name in results.networks
    ]
    assert float(rows[4]["mean"]) == results.rows["inverted", "unbiased"][results.networks[1]].value


def test_networks_that_only_look_are_in_every_row_of_the_matrices_and_have_no_losses():
    results = make_results(3, n=64, observers=("seer", "judge"))
    for kind in ("natural", "inverted"):
        lines = read(matrix_csv(results, kind))
        assert [(line["through"], line["observer"]) for line in lines] == list(
            itertools.product(results.networks, [*results.networks, "seer", "judge"])
        )
        for column, values in (("cka_unbiased", results.cells(kind)), ("floor", results.floor(kind))):
            np.testing.assert_array_equal([float(line[column]) for line in lines], values.ravel())
    networks = read(networks_csv(results))
    assert [line["network"] for line in networks] == list(results.everyone)
    assert [line["stalled"] for line in networks] == ["0", "0", "0", "", ""]
    described = {"network", "reference", "parameters", "width", "accuracy", "eps", "chance", "trained_here"}
    described |= {"weights_hash"}
    assert {key for key, value in networks[3].items() if value} == described
    assert networks[4]["weights_hash"] == results.summaries["judge"].weights_hash
    assert {line["through"] for table in (rows_csv, losses_csv) for line in read(table(results))} == {*results.networks}


def read(table: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.decode())))


def test_layers_have_a_line_for_each_two_on_each_set():
    spec = LayerSpec(("one", "two"), (("a", "b"), ("c",)), "pooled")
    similarity = LayerSimilarity(np.array([[0.1], [np.nan]]), np.array([[0.01], [np.nan]]))
    table = layers_csv(spec, {"natural": similarity, "inverted/one": similarity})
    assert table.decode().splitlines() == [
        "set,network,layer,other_network,other_layer,cka_unbiased,cka_unbiased_se",
        "natural,one,a,two,c,0.1,0.01",
        "natural,one,b,two,c,,",
        "inverted/one,one,a,two,c,0.1,0.01",
        "inverted/one,one,b,two,c,,",
    ]


OVER_NETWORKS = "se_networks,low_networks,high_networks,df_networks,se_total,low_total,high_total,df_total"


def test_errors_over_networks_asymmetry_clusters_and_maps_are_in_the_tables():
    results = with_groups(make_results(6, n=64, observers=("seer",)), *"aabbcc")
    inference = results.inference
    means = {(line["quantity"], line["set"]): line for line in read(means_csv(results))}
    assert float(means["mean", "inverted"]["se_networks"]) == inference.means["inverted"].networks.se
    assert float(means["ceiling", "natural"]["low_total"]) == inference.ceiling["natural"].total.interval[0]
    assert float(means["normalized", "inverted"]["value"]) == inference.normalized["inverted"].value
    parts = {line["set"]: float(line["seeds"]) for line in read(variances_csv(results))}
    assert parts == {name: each.seeds for name, each in inference.parts.items()}
    columns = {(line["set"], line["observer"]): float(line["se_networks"]) for line in read(columns_csv(results))}
    assert columns["inverted", "seer"] == inference.columns["inverted"]["seer"].networks.se
    pairs = {(line["through"], line["observer"]): line for line in read(asymmetry_csv(results))}
    asymmetry, names = inference.asymmetry, results.networks
    assert len(pairs) == 15
    for (i, j), difference in asymmetry.pairs.items():
        line = pairs[names[i], names[j]]
        assert (float(line["difference"]), float(line["p_holm"])) == (difference.value, asymmetry.pair_p[i, j])
    rows = {line["network"]: float(line["p_holm"]) for line in read(row_minus_column_csv(results))}
    assert rows == dict(zip(names, asymmetry.network_p, strict=True))
    clusters = read(clusters_csv(results))
    assert [line["networks"].split() for line in clusters[:5]] == [
        [names[member] for member in cluster.members] for cluster in inference.clusters["natural"][1].clusters
    ]
    places = read(map_csv(results))
    assert [float(line["y"]) for line in places[6:]] == inference.maps["inverted"][1].positions[:, 1].tolist()


def test_columns_are_those_that_programs_rely_on(results):
    headers = {
        matrix_csv: "through,observer,cka,cka_se,cka_low,cka_high,cka_interval_of,cka_unbiased,cka_unbiased_se,"
        "cka_unbiased_low,cka_unbiased_high,floor,n",
        rows_csv: f"set,through,mean,se,low,high,{OVER_NETWORKS}",
        columns_csv: f"set,observer,mean,se,low,high,{OVER_NETWORKS}",
        means_csv: f"quantity,set,value,se,low,high,{OVER_NETWORKS}",
        variances_csv: "set,architectures,seeds,images,cell_sd",
        asymmetry_csv: "through,observer,difference,se,low,high,p_value,p_holm",
        row_minus_column_csv: f"network,difference,se,low,high,{OVER_NETWORKS},p_value,p_holm",
        clusters_csv: "set,networks,height,support_images,support_networks",
        map_csv: "set,network,x,y,spread,shown",
        row_differences_csv: "through,minus,mean,se,low,high,p_value,p_value_holm",
        controls_csv: "through,observer,quantity,value,se",
        losses_csv: "through,pair,initial_loss,final_loss,distance",
        networks_csv: "network,reference,parameters,width,accuracy,robust_accuracy,eps,chance,"
        "median_initial_loss,median_loss_halfway,"
        "median_final_loss,final_loss_90,tolerance,above_tolerance,unreached,fidelity,preset,converged,median_distance,mean_iterations,stopped,stalled,nonfinite,trained_here,weights_hash",
    }
    for table, header in headers.items():
        content = table(results, "natural") if table is matrix_csv else table(results)
        assert content.decode().partition("\n")[0] == header


def test_a_verdict_has_a_line_for_each_thing_it_is_about(files):
    stopped = with_verdict(make_results(3, n=64), half_width=0.1, of="rows")
    lines = read(verdict_csv(stopped.verdict))
    assert [line["of"] for line in lines] == list(stopped.networks)
    low, high = stopped.verdict.intervals[stopped.networks[0]]
    assert (float(lines[0]["low"]), float(lines[0]["high"])) == (low, high)
    assert {(line["outcome"], line["n"], line["at_most"], line["looks"]) for line in lines} == {
        ("known", "64", "576", "3")
    }
    assert tables_of(stopped, {}, {})["verdict.csv"] == verdict_csv(stopped.verdict)
    assert "verdict.csv" not in files
