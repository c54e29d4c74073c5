"""Slopes and means by eps: against loops, against regressions of other libraries, and against known populations."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import EPS, SLOPE_POPULATIONS, Networks, draw_slopes, slope_coverage
from netsim.statistics.networks import mean_between_groups
from netsim.statistics.slopes import similarity_by_eps
from unit.statistics.test_networks import at, loop_total

GRIDS = {"complete": 0.0, "half missing": 0.5}


def drawn(rng_seed=1, *, missing=0.0, seeds=2, kinds=5):
    """Return cells, replicates, counted cells, architectures and eps of networks."""
    networks = Networks(kinds, seeds)
    draw = draw_slopes(np.random.default_rng(rng_seed), networks, missing=missing)
    counted = draw.counted.copy()
    counted[0, 3] = False
    return draw.cells, draw.replicates[..., :5], counted, [f"a{kind}" for kind in draw.architectures], draw.eps


def loop_blocks(cells, counted, labels, eps, without=None):
    """Map (a, b, k, l) to the mean of its cells."""
    found = {}
    for i, a in enumerate(labels):
        for j, b in enumerate(labels):
            if a != b and counted[i, j] and without not in (a, b):
                found.setdefault((a, b, eps[i], eps[j]), []).append(cells[i, j])
    return {key: sum(values) / len(values) for key, values in found.items()}


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else float("nan")


def loop_slope(points):
    """Fit (pair, eps) -> similarity by least squares with a column of 0 and 1 for each pair."""
    pairs = sorted({pair for pair, _ in points})
    design = np.array([[e, *(float(pair == each) for each in pairs)] for pair, e in points])
    return np.linalg.lstsq(design, np.array(list(points.values())), rcond=None)[0][0]


def same_level(blocks, row=None):
    return {
        ((a, b), k): value for (a, b, k, other), value in blocks.items() if k == other and (row is None or a == row)
    }


def robust_minus_standard(blocks):
    return mean(
        value - blocks[b, a, 0.0, k]
        for (a, b, k, other), value in blocks.items()
        if other == 0 < k and (b, a, 0.0, k) in blocks
    )


@pytest.mark.parametrize("missing", GRIDS.values(), ids=GRIDS)
def test_means_slopes_and_asymmetry_and_their_errors_are_those_of_loops(missing):
    cells, replicates, counted, labels, eps = drawn(missing=missing)
    similar = similarity_by_eps(cells, replicates, counted, labels, eps)
    kinds = sorted(set(labels))
    assert similar.eps == EPS and set(similar.architectures) == set(kinds)

    def checked(estimate, statistic, units):
        def loop(unit, shard):
            return statistic(loop_blocks(at(cells, replicates, shard), counted, labels, eps, without=unit))

        assert abs(estimate.value - loop(None, None)) < 1e-9
        errors = [getattr(estimate, name).se for name in ("images", "networks", "total")]
        assert np.allclose(errors, loop_total(loop, units, replicates.shape[-1]), rtol=0, atol=1e-9)
        assert estimate.networks.df == len(units) - 1

    checked(similar.slope, lambda blocks: loop_slope(same_level(blocks)), kinds)
    checked(similar.slopes["a2"], lambda blocks: loop_slope(same_level(blocks, "a2")), sorted({*kinds} - {"a2"}))
    checked(similar.asymmetry, robust_minus_standard, kinds)
    for k, other in ((3, 3), (0, 2)):
        pairs = [key for key in loop_blocks(cells, counted, labels, eps) if key[2:] == (EPS[k], EPS[other])]
        units = sorted({label for key in pairs for label in key[:2]})
        checked(
            similar.cross[k][other],
            lambda blocks, k=k, other=other: mean(v for key, v in blocks.items() if key[2:] == (EPS[k], EPS[other])),
            units,
        )
        row = [key for key in pairs if key[0] == "a2" and k == other]
        if row:
            checked(
                similar.rows["a2"][k],
                lambda blocks, k=k: mean(
                    v for key, v in blocks.items() if key[0] == "a2" and key[2:] == (EPS[k], EPS[k])
                ),
                sorted({key[1] for key in row}),
            )


def test_the_slope_of_a_complete_grid_is_that_of_a_line_through_its_means():
    cells, replicates, _, labels, eps = drawn()
    similar = similarity_by_eps(cells, replicates, np.ones_like(cells, dtype=bool), labels, eps)
    line = stats.linregress(EPS, [each.value for each in similar.same])
    assert similar.slope.value == pytest.approx(line.slope, abs=1e-12)
    assert similar.slope.value == pytest.approx(np.mean([each.value for each in similar.slopes.values()]), abs=1e-12)
    for name, row in similar.rows.items():
        line = stats.linregress(EPS, [each.value for each in row])
        assert similar.slopes[name].value == pytest.approx(line.slope, abs=1e-12)


def test_the_means_of_a_level_are_those_between_groups():
    cells, replicates, _, labels, eps = drawn()
    similar = similarity_by_eps(cells, replicates, np.ones_like(cells, dtype=bool), labels, eps)
    for k, level in enumerate(EPS):
        level_only = np.flatnonzero(eps == level)
        cut = np.ix_(level_only, level_only)
        other = mean_between_groups(cells[cut], replicates[cut], np.ones((10, 10), bool), np.array(labels)[level_only])
        for name in ("images", "networks", "total"):
            one, expected = getattr(similar.same[k], name), getattr(other, name)
            assert (one.value, one.se, one.df) == pytest.approx((expected.value, expected.se, expected.df), abs=1e-12)


def test_a_level_that_lacks_an_architecture_does_not_bend_the_slope():
    """Similarity that depends on architectures only is flat, although the means of levels are not."""
    labels, eps = ["a", "b", "c", "a", "b"], [0, 0, 0, 1, 1]
    quality = {"a": 0.3, "b": 0.2, "c": 0.0}
    cells = np.add.outer(*[[quality[label] for label in labels]] * 2)
    similar = similarity_by_eps(cells, np.repeat(cells[..., None], 4, -1), np.ones((5, 5), bool), labels, eps)
    assert similar.same[1].value > similar.same[0].value + 0.1
    assert similar.slope.value == pytest.approx(0, abs=1e-12)
    assert np.isnan(similar.slopes["c"].value)


def test_a_second_training_seed_gives_an_architecture_no_more_weight():
    cells, replicates, _, labels, eps = drawn(seeds=1)
    again = np.concatenate([np.arange(len(eps)), np.flatnonzero(np.array(labels) == "a1")])
    copied = np.ix_(again, again)
    once = similarity_by_eps(cells, replicates, np.ones_like(cells, dtype=bool), labels, eps)
    twice = similarity_by_eps(
        cells[copied], replicates[copied], np.ones_like(cells[copied], dtype=bool), np.array(labels)[again], eps[again]
    )
    for one, other in ((once.slope, twice.slope), (once.asymmetry, twice.asymmetry), (once.same[2], twice.same[2])):
        assert (one.value, one.total.se) == pytest.approx((other.value, other.total.se), abs=1e-12)


def test_the_transposed_matrix_has_transposed_means_and_the_opposite_asymmetry():
    cells, replicates, counted, labels, eps = drawn(missing=0.2)
    one = similarity_by_eps(cells, replicates, counted, labels, eps)
    other = similarity_by_eps(cells.T, replicates.swapaxes(0, 1), counted.T, labels, eps)
    assert other.asymmetry.value == pytest.approx(-one.asymmetry.value, abs=1e-12)
    assert [each.value for each in other.asymmetries] == pytest.approx([-each.value for each in one.asymmetries])
    values = np.array([[[each.value for each in row] for row in both.cross] for both in (one, other)])
    np.testing.assert_allclose(values[0], values[1].T, atol=1e-12)


def test_an_undefined_cell_spoils_only_what_it_belongs_to():
    cells, replicates, counted, labels, eps = drawn(seeds=1)
    i, j = labels.index("a1"), labels.index("a2")  # both of the lowest level
    cells[i, j] = np.nan
    similar = similarity_by_eps(cells, replicates, counted, labels, eps)
    assert np.isnan([similar.slope.value, similar.same[0].value, similar.rows["a1"][0].value]).all()
    assert np.isfinite([similar.same[1].value, similar.rows["a2"][0].value, similar.cross[1][0].value]).all()
    counted[i, j] = False
    assert np.isfinite(similarity_by_eps(cells, replicates, counted, labels, eps).slope.value)


def test_two_architectures_have_no_error_over_networks():
    similar = similarity_by_eps(*drawn(kinds=2))
    assert np.isfinite([similar.slope.value, similar.slope.images.se]).all()
    assert np.isnan([similar.slope.networks.se, similar.slope.total.se]).all()
    printed = similar.to_json()
    assert printed["slope"]["p_value"] is None and printed["eps"] == list(EPS)
    assert set(printed) == {"eps", "same", "cross", "rows", "slope", "slopes", "asymmetry", "asymmetries"}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda labels, eps: (labels[:-1], eps), "architectures must have 40 entries, got 39. Give every network one."),
        (lambda labels, eps: (labels, eps[:-1]), "eps must have 40 entries, got 39. Give every network one."),
        (lambda labels, eps: (["a"] * 40, eps), "there must be 2 architectures or more, got 1. Add networks."),
        (lambda labels, eps: (labels, [0.5] * 40), "there must be 2 levels of eps or more, got 1. Add networks."),
    ],
)
def test_what_has_no_slope_is_one_error(change, error):
    cells, replicates, counted, labels, eps = drawn()
    with pytest.raises(ValueError, match=f"^{error}$"):
        similarity_by_eps(cells, replicates, counted, *change(labels, eps))


@pytest.mark.parametrize("name", ["5 x 2 seeds", "9 architectures"])
def test_intervals_cover_slopes_in_about_95_percent_of_draws(name):
    """A hundred draws: a share of 95 % is between 88 and 100 % in 99.9 % of all tries."""
    for kind, share in slope_coverage(SLOPE_POPULATIONS[name], draws=100, rng_seed=5).items():
        assert share >= 0.88, kind
