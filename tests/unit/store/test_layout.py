"""Rows name every model pair once, stored pixels are exact to half a step, and a finished run has what is specified."""

import json
from collections import Counter
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
import zarr

from netsim.store import layout
from netsim.store.arrays import ArraySpec
from netsim.store.coverage import SUMS
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, STAGES, Stage


def test_all_units_of_the_natural_matrix_have_each_model_pair_once(finished):
    units = [name for name, _ in AGGREGATE.units_done(finished) if name.startswith("natural/")]
    pairs = [frozenset(pair) for unit in units for pair in SUMS.of_unit(finished, unit)]
    names = finished.sweep.names
    assert Counter(pairs) == Counter(frozenset(pair) for pair in combinations_with_replacement(names, 2))


def test_a_natural_pair_is_in_the_order_of_identities_whoever_asks_first():
    identities = {"a": "2", "b": "1"}
    assert layout.cell("natural/a", "b", identities) == layout.cell("natural/b", "a", identities) == ("b", "a")
    assert layout.cell("inverted/a", "b", identities) == ("a", "b")
    assert layout.cell("inverted/b", "a", identities) == ("b", "a")


def test_a_row_of_the_inverted_matrix_has_through_and_each_observer_and_each_observer_alone(finished):
    """CKA of a cell takes three sums: of both networks together, and of each with itself."""
    names, identities = finished.sweep.names, finished.sweep.identities(finished.sweep.names)
    for through in names:
        pairs = layout.row_pairs(layout.inverted(through), names, identities)
        assert len(pairs) == len(set(pairs)) == 2 * len(names) - 1
        assert set(pairs) == {(through, other) for other in names} | {(other, other) for other in names}


def test_each_row_belongs_to_a_set_and_each_set_has_rows_of_all_its_networks(finished):
    sweep = finished.sweep
    parts = [layout.row_parts(row) for row in layout.rows(sweep)]
    assert {set_name for set_name, _ in parts} == set(layout.sets(sweep)) - {layout.SEED}
    assert [network for set_name, network in parts if set_name == layout.NATURAL] == list(sweep.names)


def test_the_name_of_a_unit_has_its_row_its_cohort_and_its_shards():
    unit = layout.row_unit("inverted/vgg", "0123456789ab", 4)
    assert unit == "inverted/vgg/0123456789ab-4"
    assert layout.RowUnit.parse(unit) == layout.RowUnit("inverted/vgg", "0123456789ab", 4)
    with pytest.raises(ValueError, match="invalid literal"):
        layout.RowUnit.parse("inverted/vgg")


def test_each_inverted_row_is_about_a_set_of_its_own(finished):
    parts = [layout.row_parts(row) for row in layout.rows(finished.sweep)]
    assert all(set_name == layout.inverted(network) for set_name, network in parts if set_name != layout.NATURAL)


def test_a_pixel_stored_as_uint16_is_within_half_a_step_of_itself():
    pixels = np.concatenate([[0, 1, 0.5], np.random.default_rng(0).random(10_000)]).astype(np.float32)
    stored = layout.to_stored(pixels, "uint16")
    assert stored.dtype == np.uint16 and (stored[0], stored[1]) == (0, 65535)
    restored = layout.from_stored(stored)
    assert restored.dtype == np.float32
    float_error = 2**-24  # of rounding to float32, near 1
    assert np.abs(restored.astype(float) - pixels).max() <= 0.5 / layout.IMAGE_STEPS + float_error


def test_every_uint16_pixel_survives_reading_and_storing_again():
    steps = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(layout.to_stored(layout.from_stored(steps), "uint16"), steps)


def test_a_pixel_stored_as_float32_does_not_change_a_bit():
    pixels = np.random.default_rng(0).random(1000, dtype=np.float32)
    stored = layout.to_stored(pixels, "float32")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(layout.from_stored(stored), pixels)


@pytest.mark.parametrize("iterations", [1, 2, 63, 64, 65, 500, 2000])
def test_kept_history_is_sorted_short_and_has_both_ends(iterations):
    kept = layout.history_iterations(iterations)
    assert kept[0] == 0 and kept[-1] == iterations
    assert (np.diff(kept) > 0).all() and len(kept) <= 65


def specified(run: Run) -> list[ArraySpec]:
    return [spec for stage in STAGES for spec in stage.specs(run, unit_names(run, stage))]


def unit_names(run: Run, stage: Stage) -> list[str]:
    return list(dict.fromkeys(name for name, _ in stage.units_done(run)))


def coordinates(spec: ArraySpec) -> set[str]:
    """List the paths of the coordinates that lie beside an array."""
    folder = spec.path.rpartition("/")[0]
    return {f"{folder}/{dim}" for dim in spec.coordinates}


def test_a_finished_run_has_the_arrays_of_the_specification_and_no_others(finished):
    root = Path(finished.url)
    documents = {path.parent.relative_to(root).as_posix(): path for path in root.rglob("zarr.json")}
    stored = {path for path, file in documents.items() if json.loads(file.read_text())["node_type"] == "array"}
    specs = specified(finished)
    paths = [spec.path for spec in specs]
    assert len(paths) == len(set(paths))
    assert stored == set(paths) | set().union(*map(coordinates, specs))


def test_every_specified_array_is_written_in_every_shard_by_the_units_of_its_stage(finished):
    for stage in STAGES:
        records = [finished.record(stage.name, *unit) for unit in stage.units_done(finished)]
        written = Counter(path for record in records for path in record.arrays)
        shards, specs = finished.sweep.shards, stage.specs(finished, unit_names(finished, stage))
        assert written == {spec.path: shards if spec.per_pair else 1 for spec in specs}


def test_arrays_of_a_finished_run_have_the_specified_shapes_types_and_dimensions(finished):
    for spec in specified(finished):
        array = zarr.open_array(f"{finished.url}/{spec.path}", mode="r")
        assert (array.shape, array.dtype.name, array.metadata.dimension_names) == (spec.shape, spec.dtype, spec.dims)
        for dim, labels in spec.coordinates.items():
            labelled = zarr.open_array(f"{finished.url}/{spec.path.rpartition('/')[0]}/{dim}", mode="r")
            assert labelled[...].tolist() == list(labels)
