"""Representations and sums are computed once for each network, in whatever groups the networks came."""

import shutil
from collections import Counter
from itertools import combinations_with_replacement

import pytest

from netsim.errors import StoreError
from netsim.stages.work import compute_unit
from netsim.store import coverage
from netsim.store.coverage import SUMS, Rows
from netsim.store.layout import RowUnit, sets
from netsim.store.run import Run, cohort_key
from netsim.store.stages import AGGREGATE, EMBED
from support.sweeps import TINY, new_run, run_all, tiny

EXTRA = "extra=small:mobilenet@none"


@pytest.fixture
def copied(finished, tmp_path) -> str:
    shutil.copytree(finished.url, tmp_path / "run")
    return str(tmp_path / "run")


def cohort_of(run: Run, unit: str) -> set[str]:
    return set(run.cohort(unit.rpartition("/")[2].partition("-")[0]))


def test_in_a_new_run_all_observers_look_together(finished, tmp_path):
    run = new_run(str(tmp_path / "run"), tiny())
    missing = EMBED.missing(run)
    assert {name.rpartition("/")[0] for name, _ in missing} == set(sets(run.sweep))
    assert len(missing) == 20 and all(cohort_of(run, name) == set(run.sweep.columns) for name, _ in missing)


def test_a_new_network_looks_at_what_is_there_alone_and_all_look_at_its_images(copied):
    run = new_run(copied, tiny(networks=[*TINY["networks"], EXTRA]))
    missing = EMBED.missing(run)
    cohorts = {name.rpartition("/")[0]: cohort_of(run, name) for name, _ in missing}
    known = {set_name: {"extra"} for set_name in ("natural", "seed", *(f"inverted/{name}" for name in tiny().names))}
    assert cohorts == known | {"inverted/extra": {*tiny().names, "extra"}}
    assert len(missing) == 24 and [shard for _, shard in missing[:4]] == [0, 1, 2, 3]


def test_an_observer_has_columns_and_no_row(copied):
    run = new_run(copied, tiny(observers=[EXTRA]))
    assert {cohort_of(run, name).pop() for name, _ in EMBED.missing(run)} == {"extra"}
    assert len(EMBED.missing(run)) == 20
    run_all(run, only=("train", "embed"))
    rows = {RowUnit.parse(name).row: cohort_of(run, name) for name, _ in AGGREGATE.missing(run)}
    assert rows.pop("natural/extra") == {*tiny().names, "extra"}
    assert rows == {f"inverted/{name}": {"extra"} for name in tiny().names}


def test_an_interrupted_group_is_finished_by_another_group_without_computing_anything_twice(copied):
    run = new_run(copied, tiny(networks=[*TINY["networks"], EXTRA]))
    run_all(run, only=("train", "invert"))
    first = EMBED.missing(run)[:2]
    run_all_units(run, first)
    larger = new_run(copied, tiny(networks=[*TINY["networks"], EXTRA, "late=small:wrn2@none"]))
    missing = {(name.rpartition("/")[0], shard): cohort_of(larger, name) for name, shard in EMBED.missing(larger)}
    assert missing["natural", 0] == missing["natural", 1] == {"late"}
    assert missing["natural", 2] == {"extra", "late"}


def run_all_units(run: Run, units: list[tuple[str, int]]) -> None:
    EMBED.prepare(run, units)
    for unit in units:
        compute_unit(run, EMBED, *unit)


def test_each_natural_pair_is_computed_once_in_as_few_units_as_possible(finished, tmp_path):
    run = new_run(str(tmp_path / "run"), tiny())
    units = [name for name, _ in AGGREGATE.missing(run) if name.startswith("natural/")]
    pairs = Counter(frozenset(pair) for unit in units for pair in SUMS.of_unit(run, unit))
    assert pairs == Counter(frozenset(pair) for pair in combinations_with_replacement(run.sweep.names, 2))
    assert len(units) == 3


def test_a_new_network_is_compared_with_all_in_one_natural_unit(copied):
    run = new_run(copied, tiny(networks=[*TINY["networks"], EXTRA]))
    natural = [name for name, _ in AGGREGATE.missing(run) if name.startswith("natural/")]
    assert [RowUnit.parse(name).row for name in natural] == ["natural/extra"]
    assert cohort_of(run, natural[0]) == {*tiny().names, "extra"}


def test_sums_over_other_numbers_of_shards_are_others(copied):
    longer = new_run(copied, tiny(pairs={"count": 48, "shard_size": 8}))
    assert len(AGGREGATE.missing(longer)) == 6 and AGGREGATE.done(longer) == {}
    assert {RowUnit.parse(name).shards for name, _ in AGGREGATE.missing(longer)} == {6}


def test_cells_that_are_not_mirrored_are_computed_in_their_own_row(finished):
    both_ways = Rows(sums=False, mirrored=False)
    units = [name for name, _ in both_ways.missing(finished, {})]
    assert len(units) == 6 and all(cohort_of(finished, unit) == set(finished.sweep.names) for unit in units)
    assert both_ways.of_unit(finished, units[0])[0][0] == RowUnit.parse(units[0]).row.partition("/")[2]
    assert [row for row in Rows(natural=False).of(finished.sweep) if row.startswith("natural")] == []


def test_values_of_a_network_that_has_the_name_of_another_do_not_count(finished):
    names = finished.sweep.names
    stale = {name: finished.sweep.network(name).identity for name in names} | {"vgg": "of another network"}
    finished._cohorts[cohort_key(stale)] = stale
    assert set(finished.current(cohort_key(stale))) == set(names) - {"vgg"}
    done = {(f"natural/{cohort_key(stale)}", 0): 1.0}
    assert set(coverage.embedded(finished, done)["natural", 0]) == set(names) - {"vgg"}


def test_a_damaged_cohort_is_named(copied):
    run = Run.open(copied)
    name = run.files.names("cohorts")[0]
    run.files.put(f"cohorts/{name}", b'{"vgg": "other"}')
    with pytest.raises(StoreError, match=rf"cohorts/{name} is damaged; `netsim verify --repair"):
        run.cohort(name.removesuffix(".json"))
