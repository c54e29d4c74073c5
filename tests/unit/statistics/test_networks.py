"""Errors over networks: against loops, against formulas of simple cases, and against simulated populations."""

import numpy as np
import pytest

from benchmarks.coverage import POPULATIONS, coverage
from netsim.statistics.networks import (
    between_groups,
    ceiling,
    crossed_jackknife,
    decompose,
    line_means,
    mean_between_groups,
    normalized,
    within_groups,
)

SHARDS = 5
SIZES = {"nine": [1] * 9, "replicates": [3] * 4, "uneven": [3, 1, 2, 2]}


def matrix(sizes, rng_seed=0, missing=()):
    """Return cells, replicates, counted cells and groups of random networks."""
    rng = np.random.default_rng(rng_seed)
    groups = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    m = len(groups)
    effect = rng.normal(0, 0.1, (len(sizes), 2))[[int(group[1:]) for group in groups]] + rng.normal(0, 0.05, (m, 2))
    shards = effect[:, :1, None] + effect[:, 1][:, None] + rng.normal(0.3, 0.05, (m, m, SHARDS))
    counted = ~np.eye(m, dtype=bool)
    for row, column in missing:
        counted[row, column] = False
    cells = shards.mean(axis=-1)
    return cells, (SHARDS * cells[..., None] - shards) / (SHARDS - 1), counted, groups


def loop_mean(cells, counted, groups, *, same=False, without=None):
    """Average cells of two networks of different groups (or one group), without one group."""
    values = [
        cells[i, j]
        for i in range(len(groups))
        for j in range(len(groups))
        if counted[i, j] and (groups[i] == groups[j]) == same and without not in (groups[i], groups[j])
    ]
    return sum(values) / len(values) if values else float("nan")


def loop_se(values):
    """Jackknife standard error."""
    mean = sum(values) / len(values)
    return ((len(values) - 1) / len(values) * sum((value - mean) ** 2 for value in values)) ** 0.5


def loop_total(statistic, units, shards):
    """Variance over both: images + networks - interaction, from a statistic(unit or None, shard or None)."""
    images = loop_se([statistic(None, g) for g in range(shards)])
    networks = loop_se([statistic(unit, None) for unit in units])
    both = 0.0
    for g in range(shards):
        effect = [
            statistic(unit, g) - sum(statistic(unit, other) for other in range(shards)) / shards for unit in units
        ]
        both += (shards - 1) / shards * loop_se(effect) ** 2
    return images, networks, max(images**2 + networks**2 - both, images**2, networks**2) ** 0.5


def at(cells, replicates, shard):
    return cells if shard is None else replicates[..., shard]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_mean_and_its_errors_are_those_of_loops(sizes):
    cells, replicates, counted, groups = matrix(sizes, missing=[(0, 3), (3, 0)])
    units = sorted(set(groups))
    estimate = mean_between_groups(cells, replicates, counted, groups)
    images, networks, total = loop_total(
        lambda unit, shard: loop_mean(at(cells, replicates, shard), counted, groups, without=unit), units, SHARDS
    )
    assert abs(estimate.value - loop_mean(cells, counted, groups)) < 1e-9
    assert abs(estimate.images.se - images) < 1e-9
    assert abs(estimate.networks.se - networks) < 1e-9
    assert abs(estimate.total.se - total) < 1e-9
    assert (estimate.images.df, estimate.networks.df) == (SHARDS - 1, len(units) - 1)
    assert estimate.total.df == min(SHARDS, len(units)) - 1


@pytest.mark.parametrize("sizes", [SIZES["replicates"], SIZES["uneven"]])
def test_the_ceiling_and_its_errors_are_those_of_loops(sizes):
    cells, replicates, counted, groups = matrix(sizes)
    units = [group for group in sorted(set(groups)) if groups.count(group) > 1]
    estimate = ceiling(cells, replicates, counted, groups)
    expected = loop_total(
        lambda unit, shard: loop_mean(at(cells, replicates, shard), counted, groups, same=True, without=unit),
        units,
        SHARDS,
    )
    assert abs(estimate.value - loop_mean(cells, counted, groups, same=True)) < 1e-9
    assert np.allclose([estimate.images.se, estimate.networks.se, estimate.total.se], expected, rtol=0, atol=1e-9)
    assert estimate.networks.df == len(units) - 1


def test_the_place_between_control_and_ceiling_is_that_of_loops():
    cells, replicates, counted, groups = matrix(SIZES["replicates"])
    control, control_replicates, _, _ = matrix(SIZES["replicates"], rng_seed=1)
    control, control_replicates = control / 10, control_replicates / 10

    def placed(unit, shard):
        value, low = (
            loop_mean(at(*pair, shard), counted, groups, without=unit)
            for pair in ((cells, replicates), (control, control_replicates))
        )
        return (value - low) / (loop_mean(at(cells, replicates, shard), counted, groups, same=True, without=unit) - low)

    estimate = normalized(cells, replicates, counted, groups, control=control, control_replicates=control_replicates)
    expected = loop_total(placed, sorted(set(groups)), SHARDS)
    assert abs(estimate.value - placed(None, None)) < 1e-9
    assert np.allclose([estimate.images.se, estimate.networks.se, estimate.total.se], expected, rtol=0, atol=1e-9)


def test_without_a_control_similarity_is_a_share_of_the_ceiling():
    cells, replicates, counted, groups = matrix(SIZES["replicates"])
    share = normalized(cells, replicates, counted, groups).value
    assert share == pytest.approx(loop_mean(cells, counted, groups) / loop_mean(cells, counted, groups, same=True))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_means_of_rows_and_columns_are_those_of_loops(sizes):
    cells, replicates, counted, groups = matrix(sizes)
    outside = between_groups(counted, groups)
    turned = (cells.T, replicates.swapaxes(0, 1), outside.T)
    for values, without, chosen in ((cells, replicates, outside), turned):
        for i, estimate in enumerate(line_means(values, without, chosen, groups)):

            def mean(unit, shard, i=i, values=values, without=without, chosen=chosen):
                line = at(values, without, shard)[i]
                kept = [line[j] for j in range(len(groups)) if chosen[i, j] and groups[j] != unit]
                return sum(kept) / len(kept)

            units = sorted(set(groups) - {groups[i]})
            expected = loop_total(mean, units, SHARDS)
            errors = [estimate.images.se, estimate.networks.se, estimate.total.se]
            assert abs(estimate.value - mean(None, None)) < 1e-9
            assert np.allclose(errors, expected, rtol=0, atol=1e-9)
            assert estimate.networks.df == len(units) - 1


def test_the_error_of_a_row_is_that_of_a_mean():
    cells, replicates, counted, groups = matrix([1] * 9)
    row = line_means(cells, replicates, counted, groups)[4]
    assert row.networks.se == pytest.approx(cells[4][counted[4]].std(ddof=1) / np.sqrt(8), abs=1e-12)


def test_the_error_of_additive_networks_is_that_of_their_mean():
    """If a cell is the sum of effects of its networks, the mean is twice the mean effect: se = 2 s / sqrt(M)."""
    effect = np.random.default_rng(0).normal(size=9)
    cells = effect[:, None] + effect
    estimate = mean_between_groups(cells, np.repeat(cells[..., None], 4, -1), ~np.eye(9, dtype=bool), range(9))
    assert estimate.networks.se == pytest.approx(2 * effect.std(ddof=1) / 3, abs=1e-12)


def test_copies_of_every_network_do_not_make_the_error_smaller():
    cells, replicates, counted, _ = matrix([1] * 6)
    of = np.repeat(np.arange(6), 3)
    copied = (cells[np.ix_(of, of)], replicates[np.ix_(of, of)], ~np.eye(18, dtype=bool))
    once, thrice = mean_between_groups(cells, replicates, counted, range(6)), mean_between_groups(*copied, of)
    for name in ("images", "networks", "total"):
        assert getattr(thrice, name).se == pytest.approx(getattr(once, name).se, abs=1e-12)
    assert mean_between_groups(*copied, range(18)).networks.se < 0.7 * once.networks.se  # as if they were independent


def test_names_and_order_of_groups_do_not_matter():
    cells, replicates, counted, groups = matrix(SIZES["uneven"])
    order = np.random.default_rng(0).permutation(len(groups))
    mixed = np.ix_(order, order)
    renamed = [groups[i][::-1] for i in order]
    for statistic in (mean_between_groups, ceiling, normalized):
        before = statistic(cells, replicates, counted, groups)
        after = statistic(cells[mixed], replicates[mixed], counted[mixed], renamed)
        assert after.total.se == pytest.approx(before.total.se, abs=1e-12)
        assert after.value == pytest.approx(before.value, abs=1e-12)


@pytest.mark.parametrize("networks", [1, 2])
def test_two_networks_have_no_error_over_networks(networks):
    estimate = mean_between_groups(*matrix([1] * networks))
    assert np.isnan(estimate.networks.se) and np.isnan(estimate.total.se)
    assert np.isfinite(estimate.value) == (networks == 2) == np.isfinite(estimate.images.se)
    assert estimate.to_json()["networks"]["interval"] == [None, None]


def test_without_replicates_there_is_no_ceiling():
    parts = matrix([1] * 5)
    assert np.isnan(ceiling(*parts).value)
    assert np.isnan(normalized(*parts).value)
    assert np.isnan(decompose(*parts).seeds) and np.isnan(decompose(*parts).architectures)


def test_the_ceiling_of_a_single_architecture_is_over_its_networks():
    cells, replicates, counted, groups = matrix([4, 1, 1])
    estimate = ceiling(cells, replicates, counted, groups)
    inside = (cells[:4, :4], replicates[:4, :4], counted[:4, :4])
    alone = mean_between_groups(*inside, range(4))
    assert estimate.value == pytest.approx(alone.value, abs=1e-12)
    assert estimate.networks.se == pytest.approx(alone.networks.se, abs=1e-12) and estimate.networks.df == 3


def test_an_undefined_cell_makes_its_mean_undefined():
    cells, replicates, counted, groups = matrix([1] * 5)
    cells[0, 1] = np.nan
    assert np.isnan(mean_between_groups(cells, replicates, counted, groups).value)
    counted[0, 1] = False
    assert np.isfinite(mean_between_groups(cells, replicates, counted, groups).total.se)


def loop_components(cells, groups):
    """Nested analysis of variance for groups of equal size, block by block: parts of seeds, and of one cell."""
    kinds = sorted(set(groups))
    r, k = len(groups) // len(kinds), len(kinds)
    index = {kind: [i for i, group in enumerate(groups) if group == kind] for kind in kinds}
    weight, seeds, residual, single = 1 / (k * (k - 1) / 2), 0.0, 0.0, []
    contribution = dict.fromkeys(range(len(groups)), 0.0)
    for a in kinds:
        for b in kinds:
            if a < b:
                both = [[(cells[i, j] + cells[j, i]) / 2 for j in index[b]] for i in index[a]]
                for row, i in enumerate(index[a]):
                    contribution[i] += weight * sum(both[row]) / r
                for column, j in enumerate(index[b]):
                    contribution[j] += weight * sum(line[column] for line in both) / r
                residual += weight**2 * mean_squares(both)[2] / r**2
            if a != b:
                rows, columns, rest = mean_squares([[cells[i, j] for j in index[b]] for i in index[a]])
                single.append((rows - rest) / r + (columns - rest) / r + rest)
    for kind in kinds:
        values = [contribution[i] for i in index[kind]]
        seeds += sum((value - sum(values) / r) ** 2 for value in values) / (r - 1) / r
    return seeds - residual, sum(single) / len(single)


def mean_squares(table):
    """Mean squares of rows, columns and residual of a square table."""
    r = len(table)
    total = sum(map(sum, table)) / r**2
    rows = [sum(line) / r for line in table]
    columns = [sum(line[j] for line in table) / r for j in range(r)]
    rest = sum((table[i][j] - rows[i] - columns[j] + total) ** 2 for i in range(r) for j in range(r))
    ms = [r * sum((value - total) ** 2 for value in values) / (r - 1) for values in (rows, columns)]
    return ms[0], ms[1], rest / (r - 1) ** 2


def test_the_parts_of_the_variance_are_those_of_a_nested_analysis():
    cells, replicates, counted, groups = matrix(SIZES["replicates"])
    parts, mean = decompose(cells, replicates, counted, groups), mean_between_groups(cells, replicates, counted, groups)
    seeds, single = loop_components(cells, groups)
    assert abs(parts.seeds**2 - seeds) < 1e-9
    assert abs(parts.cell_sd**2 - single) < 1e-9
    assert abs(parts.architectures**2 + parts.seeds**2 - mean.networks.se**2) < 1e-9
    assert parts.images == mean.images.se


def test_the_parts_of_the_variance_are_unbiased():
    """Seeds that shift a network by 0.05 shift a mean over K x r of them by 2 x 0.05 / sqrt(K r)."""
    rng, of = np.random.default_rng(0), np.repeat(np.arange(5), 3)
    variances, cell = [], []
    for _ in range(300):
        effect = rng.normal(0, 0.1, 5)[of] + rng.normal(0, 0.05, 15)
        cells = effect[:, None] + effect + rng.normal(0, 0.03, (15, 15))
        parts = decompose(cells, np.repeat(cells[..., None], 2, -1), ~np.eye(15, dtype=bool), of)
        variances.append(parts.seeds**2)
        cell.append(parts.cell_sd**2)
    assert np.mean(variances) == pytest.approx(4 * 0.05**2 / 15 + 0.03**2 / 180, rel=0.05)
    assert np.mean(cell) == pytest.approx(2 * 0.05**2 + 0.03**2, rel=0.05)


@pytest.mark.parametrize("name", ["9 networks", "5 architectures x 3 seeds", "9 networks, pairs matter as much"])
def test_intervals_over_images_over_networks_and_over_both_cover_the_truth(name):
    shares = coverage(POPULATIONS[name], draws=1000)
    if POPULATIONS[name].seeds == 1:
        assert shares.pop("ceiling") == shares.pop("normalized") == 0  # NaN contains nothing
    assert {kind: share for kind, share in shares.items() if not 0.93 <= share <= 0.97} == {}


def test_an_interval_over_images_does_not_cover_other_networks():
    """The reason for the error over networks: the simulation would notice if it were missing."""
    shares = coverage(POPULATIONS["9 networks"], draws=200, rng_seed=1)
    assert shares["networks"] > 0.9
    assert coverage(POPULATIONS["9 networks"], draws=200, rng_seed=1, interval="images")["networks"] < 0.5


def test_both_samples_are_counted_once():
    """Errors of both that come from single cells alone are the same errors, and do not add."""
    noise = np.random.default_rng(0).normal(size=(9, 9, 16))
    cells = noise.mean(axis=-1)
    both = mean_between_groups(cells, (16 * cells[..., None] - noise) / 15, ~np.eye(9, dtype=bool), range(9))
    assert both.total.se < 1.05 * max(both.images.se, both.networks.se) < np.hypot(both.images.se, both.networks.se)


def test_wrong_shapes_are_refused():
    cells, replicates, counted, groups = matrix([1] * 4)
    with pytest.raises(ValueError, match=r"cells must be \(M, M\), got \(4, 3\)"):
        mean_between_groups(cells[:, :3], replicates, counted, groups)
    with pytest.raises(ValueError, match=r"counted must be \(4, 4\) like cells, got \(3, 4\)"):
        mean_between_groups(cells, replicates, counted[:3], groups)
    with pytest.raises(ValueError, match=r"replicates must be \(4, 4\) and a last axis of shards, got \(5, 4, 4\)"):
        ceiling(cells, np.moveaxis(replicates, -1, 0), counted, groups)
    with pytest.raises(ValueError, match="groups must have 4 labels, got 3"):
        normalized(cells, replicates, counted, groups[:3])


def test_cells_are_between_groups_or_within_them():
    counted = ~np.eye(4, dtype=bool)
    groups = ["a", "b", "a", "c"]
    assert (between_groups(counted, groups) | within_groups(counted, groups)).tolist() == counted.tolist()
    assert np.argwhere(within_groups(counted, groups)).tolist() == [[0, 2], [2, 0]]


def test_a_table_of_one_unit_has_no_error_over_it():
    both = crossed_jackknife(np.array([[0.5, 0.4, 0.6], [0.5, 0.4, 0.6]]))
    assert np.isnan(both.networks.se) and both.images.se > 0
