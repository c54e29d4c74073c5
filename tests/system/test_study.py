"""A study of a real run: a grid of architectures and eps becomes a store, other measures, and a page."""

import csv
import json

import pytest

from netsim.results.measured import measure_stage
from netsim.results.results import load_results
from netsim.results.study import MEASURES
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from support.sweeps import new_run, run_all, tiny
from system.test_cli import cli  # noqa: F401 (a fixture)

GRID = {
    "reference": "small:{arch}",
    "training": {"adversarial": {"norm": "l2", "steps": 1}},
    "grid": {"arch": ["shufflenet", "vgg"], "eps": [0, 0.5]},
}


@pytest.fixture(scope="module")
def robust(tmp_path_factory) -> Run:
    """A tiny run of two architectures, standard and robust, with the measures of predictions."""
    settings = tiny(networks=[GRID], pairs={"count": 24, "shard_size": 6}, inversion={"iterations": 3, "batch_size": 6})
    run = new_run(str(tmp_path_factory.mktemp("robust") / "run"), settings)
    run_all(run)
    stage = measure_stage(MEASURES)
    units = stage.missing(run)
    stage.prepare(run, units)
    for name, shard in units:
        compute_unit(run, stage, name, shard)
    return run


def test_a_study_prints_tables_and_writes_a_page(cli, robust, tmp_path):  # noqa: F811
    code, out, err = cli("study", robust.url, "--floor", "0.3", "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    out = " ".join(out.split())
    assert "retraining" in out and "vgg-eps0.5" in out and "Not converged" in out
    assert "Two architectures have no error over networks" in out
    page = (tmp_path / "out" / "study.html").read_text(encoding="utf-8")
    assert "Agreement of predicted classes" in page and "Not measured" not in page
    means = list(csv.DictReader((tmp_path / "out" / "curves.csv").open(newline="")))
    assert {(line["quantity"], line["set"]) for line in means} >= {(name, "natural") for name in ("cka", *MEASURES)}


def test_a_study_as_json_has_the_networks_with_their_eps_and_writes_nothing(cli, robust, tmp_path):  # noqa: F811
    code, out, _ = cli("study", robust.url, "--floor", "0", "--json")
    printed = json.loads(out)
    summaries = load_results(robust).summaries
    assert code == 0 and list(tmp_path.iterdir()) == []
    assert printed["eps"] == [0.0, 0.5] and printed["architectures"] == ["shufflenet", "vgg"]
    assert {each["name"]: each["robust"] for each in printed["networks"]} == {
        name: summaries[name].robust for name in robust.settings.names
    }
    assert printed["not_measured"] == []


def test_a_floor_that_leaves_one_level_is_one_error(cli, robust):  # noqa: F811
    code, out, err = cli("study", robust.url, "--floor", "1")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "2 are below their accuracy floor" in err and "lower --floor" in err
