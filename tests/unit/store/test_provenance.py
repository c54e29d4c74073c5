"""A unit knows what it was computed from, and is refused where the store has other weights or values now."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from blake3 import blake3

from netsim.errors import StoreError
from netsim.stages.work import compute_unit
from netsim.store.layout import row_unit
from netsim.store.provenance import (
    Contents,
    check_origin,
    check_origins,
    check_weights,
    report_metadata,
    source_units,
    sources,
    sources_of,
    weights_hash,
)
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, STAGES, unit_label
from netsim.store.views import view
from netsim.verify import verify


def contents_of(run: Run, record: Record) -> Contents:
    return Contents(run.records_of(source_units(run, record)).values())


def units(run: Run, *names: str) -> list[Record]:
    """Read the records of a finished run whose stage and name begin so."""
    every = [(stage.name, *unit) for stage in STAGES for unit in stage.units_done(run)]
    return [run.record(*unit) for unit in every if f"{unit[0]} {unit[1]} {unit[2]}".startswith(names)]


def test_the_hash_depends_on_each_part_and_on_their_order(finished):
    contents = Contents(units(finished, "draw"))
    parts = [("images/seed", 0), ("images/target", 0), ("images/seed", 1)]
    hashes = [finished.record("draw", "pairs", shard).arrays[path] for path, shard in parts]
    assert contents.hash_of(parts) == blake3(json.dumps(hashes).encode()).hexdigest()
    others = (parts[::-1], parts[:2], [*parts, ("images/target", 1)], [])
    assert contents.hash_of(parts) not in map(contents.hash_of, others)


def test_every_unit_of_a_finished_run_was_made_from_the_values_in_the_store(finished):
    for record in units(finished, ""):
        contents = contents_of(finished, record)
        check_origin(finished, record, contents)
        if parts := sources_of(finished, record):
            assert record.facts["made_from"] == contents.hash_of(parts)
            assert all(part in contents for part in parts)
        else:
            assert record.stage in ("train", "draw")


def test_what_a_unit_is_made_from_is_what_it_reads(finished):
    (look,) = units(finished, "embed natural/ 1", "embed natural")[1:2]
    assert sources(finished, ("embed", look.name, 1)) == [("images/target", 1)]
    row = units(finished, "aggregate inverted/vgg")[0]
    parts = sources(finished, ("aggregate", row.name, 0))
    assert parts == [
        (f"representations/inverted/vgg/{name}", shard) for shard in range(4) for name in sorted(finished.sweep.names)
    ]
    assert sources(finished, ("layers", "key/natural", 2)) == [("images/target", 2)]
    assert sources(finished, ("layers", "key/inverted/vgg", 2)) == [("inverted/vgg/image", 2)]
    measured = ("measure", f"rsa/{row.name}", 0)
    assert sources(finished, measured) == parts
    both = sources(finished, measured, two_sets=True)
    assert both[len(parts) :] == parts and {path.split("/")[1] for path, _ in both[: len(parts)]} == {"natural"}


def test_a_report_stays_current_when_another_sweep_has_compared_the_same_networks_in_units_of_its_own(
    finished, tmp_path
):
    """As two sweeps do that begin at the same time."""
    shutil.copytree(finished.url, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    record = run.record("report", run.sweep.id)
    assert report_metadata(run).to_json() == record.facts
    for networks in combinations(run.sweep.columns, 2):
        unit = row_unit("natural/vgg", run.name_cohort(networks), run.sweep.shards)
        AGGREGATE.prepare(run, [(unit, 0)])
        compute_unit(run, AGGREGATE, unit, 0)
    assert report_metadata(run).sums != record.facts["sums"]
    check_origin(run, record, Contents())
    assert verify(run, sample=0) == []


@pytest.mark.parametrize("unit", ["invert vgg 1", "aggregate inverted/vgg", "report"])
def test_a_unit_made_from_other_values_is_refused(finished, unit):
    record = units(finished, unit)[0]
    label = unit_label((record.stage, record.name, record.shard))
    for upstream in finished.records_of(source_units(finished, record)).values():
        other = replace(upstream, arrays={path: f"not {value}" for path, value in upstream.arrays.items()})
        with pytest.raises(
            StoreError, match=rf"^{label} in .* was computed from other values than the store has now; `netsim verify"
        ):
            check_origin(finished, record, Contents([other]))


def test_a_unit_that_does_not_say_what_it_was_made_from_is_accepted(finished):
    record = units(finished, "invert vgg 1")[0]
    silent = replace(record, facts={key: value for key, value in record.facts.items() if key != "made_from"})
    drawn = finished.record("draw", "pairs", 1)
    check_origin(finished, silent, Contents([replace(drawn, arrays=dict.fromkeys(drawn.arrays, "other"))]))


def test_a_unit_computed_with_other_weights_is_refused(finished):
    record = units(finished, "embed inverted/vgg")[2]
    assert set(record.facts["weights"]) == set(finished.settings.names)
    check_weights(finished, record)
    for name in finished.settings.names:
        other = replace(record, facts=record.facts | {"weights": record.facts["weights"] | {name: "other"}})
        with pytest.raises(StoreError, match=rf"^embed inverted/vgg/\w+ shard \d in .* with other weights of {name}; "):
            check_weights(finished, other)


def test_other_weights_of_a_network_that_the_sweep_does_not_have_do_not_matter(finished):
    record = units(finished, "embed inverted/vgg")[0]
    pair = view(finished, ["vgg", "resnet18"])
    other = replace(record, facts=record.facts | {"weights": record.facts["weights"] | {"shufflenet": "other"}})
    check_weights(pair, other)


def test_records_of_units_that_share_sources_are_read_once(finished, monkeypatch):
    read: Counter[tuple[str, str, int]] = Counter()
    records_of = Run.records_of

    def counted(run, wanted):
        wanted = list(wanted)
        read.update(wanted)
        return records_of(run, wanted)

    rows = units(finished, "aggregate natural")
    monkeypatch.setattr(Run, "records_of", counted)
    check_origins(finished, rows)
    assert {(stage, name.partition("/")[0], shard) for stage, name, shard in read} == {
        ("embed", "natural", shard) for shard in range(4)
    }
    assert set(read.values()) == {1}


def test_the_hash_of_weights_is_that_of_the_record(finished):
    stored = json.loads(finished.files.get("commits/train/shufflenet/00000.json"))
    assert weights_hash(finished, "shufflenet") == stored["facts"]["weights_hash"]


def test_a_measure_of_all_networks_is_read_where_some_are_shown(finished):
    """Its rows were made from representations by networks that the view lacks."""
    some = view(finished, ["vgg", "resnet18"])
    records = units(finished, "aggregate")
    check_origins(some, records)
    check_origins(finished, records)
