"""A store that grew in steps, whatever their order and whoever was killed, has the bits of one made at once."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from netsim.stages.work import compute_unit, work_of
from netsim.store.run import Run
from netsim.store.stages import STAGES, Stage
from netsim.verify import verify
from support.grown import SIDE, WORK, ask, looks, net, results, settings, sums, values, write_images
from support.sweeps import run_all

ROOT = Path(__file__).parents[2]
NETWORKS = (net(5), net(6), net(7), net(8))
OBSERVER = net(9)
FIRST, LAST = 8, 16
"""Pairs that a store begins with, and those that it ends with."""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    return write_images(tmp_path_factory.mktemp("images") / "images.npz")


@pytest.fixture(scope="module")
def fresh(source, tmp_path_factory) -> Run:
    """Make the store that all orders lead to, at once."""
    run = ask(str(tmp_path_factory.mktemp("fresh") / "run"), settings(source, NETWORKS, LAST, [OBSERVER]))
    run_all(run)
    return run


def whole_of(fresh: Run) -> dict:
    """Return the settings that all orders lead to."""
    return fresh.settings.model_dump(mode="json")


def require_equal(grown: Run, fresh: Run) -> None:
    """Compare all values of two stores, the sums behind each cell, and the results."""
    stored, expected = values(grown), values(fresh)
    assert stored.keys() == expected.keys()
    assert [path for path in expected if stored[path] != expected[path]] == []
    assert sums(grown) == sums(fresh)
    assert results(grown) == results(fresh)
    assert verify(grown) == []


# ---- random orders


def steps(rng: np.random.Generator) -> Iterator[tuple[list[str], int, list[str]]]:
    """Yield networks, pairs and observers of sweeps, each with one thing more than the one before, in any order."""
    networks, pairs, observers = [NETWORKS[k] for k in rng.permutation(4)[:2]], FIRST, list[str]()
    yield networks, pairs, observers
    things = [*(each for each in NETWORKS if each not in networks), OBSERVER, 12, LAST]
    for thing in rng.permutation(np.array(things, dtype=object)):
        if isinstance(thing, int):
            pairs = max(pairs, thing)
        elif thing == OBSERVER or (thing not in observers and rng.random() < 0.3):
            observers = [*observers, thing]  # a network may look before it joins
        else:
            networks = [*networks, thing]
        yield [networks[k] for k in rng.permutation(len(networks))], pairs, observers


def interrupt(run: Run, rng: np.random.Generator) -> None:
    """Stop in the middle of a stage: some units are done, one has values but no record, and one has half a chunk."""
    stage: Stage = STAGES[1 + int(rng.integers(5))]
    run_all(run, only=WORK[: WORK.index(stage.name)])
    units = stage.missing(run)
    stage.prepare(run, units)
    done = int(rng.integers(len(units) + 1))
    for name, shard in units[:done]:
        compute_unit(run, stage, name, shard)
    for (name, shard), complete in zip(units[done:], (True, False), strict=False):
        arrays = work_of(stage)(run, name, shard).arrays
        run._write_arrays(dict(list(arrays.items())[: None if complete else 1]), shard)
        if not complete and arrays:  # training stores none
            run.files.put(run._chunk(list(arrays)[-1], shard)[0], b"half")


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_growth_gives_the_bits_of_a_fresh_store(seed, source, fresh, tmp_path):
    rng = np.random.default_rng(seed)
    url = str(tmp_path / "run")
    for networks, pairs, observers in steps(rng):
        run = ask(url, settings(source, networks, pairs, observers))
        ending = rng.random()
        if ending < 0.4:
            interrupt(run, rng)
        elif ending < 0.8:
            run_all(run, only=WORK)
    run = ask(url, whole_of(fresh))
    run_all(run, only=WORK)
    require_equal(run, fresh)
    assert set(looks(run).values()) == {1}


def test_a_sweep_that_was_asked_before_computes_nothing_and_shows_what_it_showed(source, fresh, tmp_path):
    asked_first = settings(source, NETWORKS[:2], FIRST)
    first = ask(str(tmp_path / "run"), asked_first, label="first")
    run_all(first)
    folders = "pairs", "images", "inverted", "representations", f"results/{first.sweep.id}", f"report/{first.sweep.id}"
    before, shown = values(first, *folders), results(first)
    grown = ask(first.url, whole_of(fresh))
    run_all(grown)
    again = Run.open(first.url, "first")
    after = values(again, *folders)
    assert {path for path in before if after[path] != before[path]} <= {path for path in before if "zarr.json" in path}
    assert results(again) == shown
    assert set(run_all(ask(first.url, asked_first, label="first")).values()) == {0}
    matrices = f"results/{fresh.sweep.id}"
    assert values(grown, matrices) == values(fresh, matrices) != {}


def test_a_pair_of_networks_has_the_same_values_in_every_sweep(source, fresh, tmp_path):
    small = ask(str(tmp_path / "run"), settings(source, NETWORKS[2:0:-1], LAST))
    run_all(small, only=WORK)
    cells = sums(small)
    assert cells == {cell: value for cell, value in sums(fresh).items() if cell in cells}
    order = [fresh.sweep.names.index(name) for name in small.sweep.names]
    for kind in ("natural", "inverted"):
        few, many = (np.array(results(run)[kind]["cka"]) for run in (small, fresh))
        assert np.array_equal(few, many[np.ix_(order, order)])


@pytest.mark.filterwarnings("ignore:Object at .* is not recognized as a component of a Zarr hierarchy")
def test_xarray_opens_a_store_that_grew_while_its_sweeps_have_different_numbers_of_pairs(source, tmp_path):
    url = str(tmp_path / "run")
    sweeps = [
        ask(url, settings(source, networks, pairs, [OBSERVER]))
        for networks, pairs in ((NETWORKS[:2], LAST), (NETWORKS[1:3], FIRST))
    ]
    for run in sweeps:
        run_all(run)
    tree = xr.open_datatree(url, engine="zarr", consolidated=False)
    assert tree["inverted/net6/image"].shape == (LAST, 1, SIDE, SIDE)
    assert tree["inverted/net7/image"].shape == (FIRST, 1, SIDE, SIDE)
    assert tree["representations/natural/net9"].shape == (LAST, 9)
    for run in sweeps:
        cka = tree[f"results/{run.sweep.id}/cka"]
        assert cka.dims == ("set", "through", "observer") and cka["through"].values.tolist() == list(run.sweep.names)
        assert np.isfinite(cka.values).all()


# ---- two writers at once


def two_sweeps(source: str, url: str) -> list[dict]:
    """Finish a store of two networks; return two sweeps that add one network each."""
    run_all(ask(url, settings(source, NETWORKS[:2], LAST, [OBSERVER])), only=WORK)
    return [settings(source, [*NETWORKS[:2], network], LAST, [OBSERVER]) for network in NETWORKS[2:]]


def require_nothing_lost(url: str, fresh: Run) -> None:
    """Finish the sweep of all networks, and compare its store with a fresh one."""
    run = ask(url, whole_of(fresh))
    computed = run_all(run, only=WORK)
    assert computed["invert"] == computed["train"] == computed["draw"] == 0
    assert computed["embed"] == 2 * LAST // 4  # neither of the new networks has looked at the images of the other
    require_equal(run, fresh)
    assert set(looks(run).values()) == {1}


def test_two_threads_that_add_a_network_each_lose_nothing_and_compute_nothing_twice(source, fresh, tmp_path):
    url = str(tmp_path / "run")
    sweeps = two_sweeps(source, url)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda sweep: run_all(ask(url, sweep), only=WORK), sweeps))
    assert [each["invert"] for each in done] == [LAST // 4] * 2
    require_nothing_lost(url, fresh)


def commits(url: str) -> int:
    """Count commit records."""
    return sum(1 for _ in Path(url, "commits").rglob("*.json"))


def start(url: str, file: Path) -> subprocess.Popen[str]:
    """Compute a sweep in a process of its own."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "support.grown", url, str(file)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def kill_after(process: subprocess.Popen[str], url: str, records: int) -> None:
    """Kill a process with SIGKILL once the store has so many records."""
    while commits(url) < records and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate()


def test_two_processes_that_add_a_network_each_and_are_killed_once_lose_nothing(source, fresh, tmp_path):
    url, files = str(tmp_path / "run"), [tmp_path / "first.json", tmp_path / "second.json"]
    for file, sweep in zip(files, two_sweeps(source, url), strict=True):
        file.write_text(json.dumps(sweep))
    before = commits(url)
    killed = [start(url, file) for file in files]
    for process, more in zip(killed, (5, 9), strict=True):
        kill_after(process, url, before + more)
    assert [process.returncode for process in killed] == [-9, -9]
    again = [start(url, file) for file in files]
    done = [json.loads(process.communicate(timeout=300)[0]) for process in again]
    assert 0 < sum(each["invert"] for each in done) <= 2 * LAST // 4
    require_nothing_lost(url, fresh)


def test_growth_in_a_copy_leaves_the_original_alone(source, fresh, tmp_path):
    shutil.copytree(fresh.url, tmp_path / "copy")
    before = values(fresh), commits(fresh.url)
    run = ask(str(tmp_path / "copy"), settings(source, NETWORKS[::-1], LAST, [OBSERVER]))
    assert {stage: units for stage, units in run_all(run).items() if units} == {"report": 1}
    assert (values(fresh), commits(fresh.url)) == before
