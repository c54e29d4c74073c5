"""Commands of a store that grows: what they print, and one clear error for each thing a user can get wrong."""

import json
import shutil
from pathlib import Path

import pytest

from netsim.store.run import Run
from support.sweeps import TINY, new_run, run_all, tiny
from system.test_cli import call


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(monkeypatch, capsys, *map(str, arguments))


@pytest.fixture
def store(finished, tmp_path) -> str:
    shutil.copytree(finished.url, tmp_path / "runs" / "tiny")
    return str(tmp_path / "runs" / "tiny")


def test_score_prints_a_column_with_intervals_and_means(cli, store):
    code, out, _ = cli("score", store, "seer=small:mobilenet@none")
    assert code == 0 and "Unbiased CKA with seer, which only looks; n = 32 images in 4 shards" in " ".join(out.split())
    assert "Means: natural " in out and "vgg" in out
    code, out, _ = cli("score", store, "small:resnet18@none", "--json")
    printed = json.loads(out)
    assert printed["twins"] == ["resnet18"] and set(printed["natural"]) == {"vgg", "resnet18", "shufflenet"}
    assert [path.name for path in (Path(store) / "networks").iterdir() if "seer" in path.name] == []


def test_list_shows_every_sweep_below_a_place(cli, store):
    new_run(store, tiny(networks=TINY["networks"][:2]), label="fewer")
    code, out, _ = cli("list", "runs")
    assert code == 0 and "1 runs below runs" in out and "complete" in out and "report 0/1" in out
    code, out, _ = cli("list", "--json")
    (listed,) = json.loads(out)
    assert [sweep["name"] for sweep in listed["sweeps"]] == ["tiny", "fewer"]


def test_compare_prints_differences_with_intervals(cli, store):
    run_all(new_run(store, tiny(networks=TINY["networks"][:2]), label="fewer"))
    code, out, _ = cli("compare", store, "--sweep", "tiny", "--sweep", "fewer")
    assert (
        code == 0 and "paired: both are of the same pairs" in " ".join(out.split()) and "natural minus inverted" in out
    )
    code, out, _ = cli("compare", store, store, "--json")
    assert code == 0 and json.loads(out)["networks"] == ["vgg", "resnet18"]
    code, _, err = cli("compare", store)
    assert code == 2 and "two runs must be compared" in err


def test_results_of_some_networks_on_some_pairs_are_shown(cli, store):
    code, out, _ = cli("results", store, "--networks", "shufflenet, vgg", "--json")
    assert code == 0 and json.loads(out)["networks"] == ["shufflenet", "vgg"]
    code, _, err = cli("results", store, "--networks", "shufflenet,vg")
    assert code == 2 and "did you mean 'vgg'" in err
    code, _, err = cli("results", store, "--pairs", "24")
    assert code == 1 and "is not finished" in err and "netsim run --store" in err
    code, _, err = cli("results", store, "--pairs", "20")
    assert code == 2 and "--pairs must be a multiple of 8 from 16 to 32" in err
    code, _, err = cli("results", store, "--sweep", "tny")
    assert code == 2 and "did you mean 'tiny'" in err


def test_drop_asks_first_and_keeps_what_a_sweep_shows(cli, store, monkeypatch):
    code, _, err = cli("drop", store, "vgg", "--yes")
    assert code == 2 and "vgg must not be dropped while a sweep shows it, got tiny (" in err
    run_all(new_run(store, tiny(networks=[*TINY["networks"], "extra=small:wrn2@none"]), label="more"))
    monkeypatch.setattr("sys.stdin", open("/dev/null", encoding="utf-8"))  # noqa: SIM115 (nobody answers)
    code, _, _ = cli("drop", store, "extra", "--sweep", "more")
    assert code == 1 and (Path(store) / "networks" / "extra.json").exists()
    shutil.copytree(store, copy := f"{store}-copy")
    code, out, _ = cli("drop", store, "extra", "--sweep", "more", "--yes")
    assert code == 0 and "drop network extra" in out and "files removed" in out
    sweep = Run.open(copy).sweep.id
    code, out, err = cli("drop", copy, "extra", "--sweep", "more", "--yes", "--json")
    printed = json.loads(out)
    assert printed.pop("files") > 10 and printed == {"networks": ["extra"], "sweeps": [{"name": "more", "id": sweep}]}
    assert code == 0 and "drop network extra" in err
    assert not (Path(store) / "networks" / "extra.json").exists() and Run.open(store).sweep.label == "tiny"
    code, _, err = cli("drop", store)
    assert code == 2 and "nothing to drop" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "small:vgg"), "network names must differ, got 'vgg' twice; rename one, as in 'other=small:vgg'"),
        (("add", "small:vg"), "did you mean 'vgg'"),
        (("extend", "--pairs", "16"), "--pairs must be at least 32, which"),
        (("extend", "--pairs", "44"), "count must be a multiple of shard_size (8), got 44; use 40 or 48"),
        (("score", "small:mobilenet"), "must have weights to look"),
    ],
)
def test_what_cannot_be_added_is_one_clear_error_and_nothing_is_stored(cli, store, arguments, message):
    before = sorted(Path(store).rglob("*"))
    verb, *rest = arguments
    code, _, err = cli(verb, store, *rest)
    assert code == 2 and message in err and err.count("\n") <= 2
    assert sorted(Path(store).rglob("*")) == before


def test_a_store_of_another_format_is_refused_with_the_version_that_reads_it(cli, store):
    path = Path(store) / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["netsim"] |= {"format": 4, "versions": {"netsim": "0.2.0"}}
    path.write_text(json.dumps(document))
    code, _, err = cli("results", store)
    assert code == 1 and "has format 4; this netsim reads format 5. Use the netsim that made it (0.2.0)" in err
