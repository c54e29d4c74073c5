"""A unit knows what it was computed from, and is refused where the store has other weights or values now."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from blake3 import blake3

from netsim.errors import StoreError
from netsim.store.provenance import check_origin, check_weights, dependency_records, made_from, weights_hash
from netsim.store.run import Run
from netsim.store.stages import STAGES, dependencies, unit_label


def test_the_hash_depends_on_each_content_and_on_their_order():
    contents = ["a", "b", "c"]
    assert made_from(contents) == made_from(iter(contents)) == blake3(b'["a", "b", "c"]').hexdigest()
    others = (["a", "c", "b"], ["a", "b"], ["a", "b", "d"], ["ab", "c"], [])
    assert made_from(contents) not in map(made_from, others)


def test_every_unit_of_a_finished_run_was_made_from_the_values_in_the_store(finished):
    for stage in STAGES:
        for name, shard in stage.every(finished.settings):
            unit = (stage.name, name, shard)
            record, known = finished.record(*unit), dependency_records(finished, [unit])
            assert list(known) == dependencies(finished.settings, unit)
            check_origin(finished, record, known)
            if known:
                assert record.facts["made_from"] == made_from(upstream.content for upstream in known.values())


@pytest.mark.parametrize("unit", [("invert", "vgg", 1), ("aggregate", "inverted/vgg", 0), ("report", "report", 0)])
def test_a_unit_made_from_other_values_is_refused(finished, unit):
    record, known = finished.record(*unit), dependency_records(finished, [unit])
    for upstream, stored in known.items():
        other = replace(stored, arrays={path: f"not {value}" for path, value in stored.arrays.items()})
        with pytest.raises(
            StoreError,
            match=rf"^{unit_label(unit)} in .* was computed from other values than the store has now; `netsim verify",
        ):
            check_origin(finished, record, known | {upstream: other})


def test_a_unit_that_does_not_say_what_it_was_made_from_is_accepted(finished):
    unit = ("invert", "vgg", 1)
    record, known = finished.record(*unit), dependency_records(finished, [unit])
    silent = replace(record, facts={key: value for key, value in record.facts.items() if key != "made_from"})
    check_origin(finished, silent, {upstream: replace(stored, arrays={}) for upstream, stored in known.items()})


def test_a_unit_computed_with_other_weights_is_refused(finished):
    record = finished.record("embed", "inverted/vgg", 2)
    assert set(record.facts["weights"]) == set(finished.settings.names)
    check_weights(finished, record)
    for name in finished.settings.names:
        other = replace(record, facts=record.facts | {"weights": record.facts["weights"] | {name: "other"}})
        with pytest.raises(StoreError, match=rf"^embed inverted/vgg shard 2 in .* with other weights of {name}; "):
            check_weights(finished, other)


def test_records_of_units_that_share_dependencies_are_read_once(finished, monkeypatch):
    read: Counter[tuple[str, str, int]] = Counter()
    records_of = Run.records_of

    def counted(run, wanted):
        wanted = list(wanted)
        read.update(wanted)
        return records_of(run, wanted)

    units = [("aggregate", f"natural/{name}", 0) for name in finished.settings.names]
    monkeypatch.setattr(Run, "records_of", counted)
    known = dependency_records(finished, units)
    assert read == Counter(known.keys()) == {("embed", "natural", shard): 1 for shard in range(4)}


def test_the_hash_of_weights_is_that_of_the_record(finished):
    stored = json.loads(finished.files.get("commits/train/shufflenet/00000.json"))
    assert weights_hash(finished, "shufflenet") == stored["facts"]["weights_hash"]
