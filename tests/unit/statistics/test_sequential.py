"""Intervals that may be looked at again and again: agreement with obvious twins, and coverage on drawn sweeps."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from benchmarks.until import (
    POPULATIONS,
    USUAL,
    Looks,
    Outcome,
    Population,
    draw,
    kind_of,
    questions,
    simulate,
    true_rows,
)
from netsim.similarity.cka import similarity
from netsim.similarity.uncertainty import Estimate
from netsim.statistics.sequential import (
    FIRST_LOOK,
    TARGET,
    anytime_factor,
    anytime_interval,
    looks,
    width_factor,
    width_interval,
)


def test_looks_of_a_longer_sweep_begin_with_those_of_a_shorter_one():
    assert list(looks(100))[:-1] == [look for look in looks(300) if look < 100]
    assert all(b - a <= max(1, a / 8) for a, b in zip(looks(300), list(looks(300))[1:], strict=False))


@pytest.mark.parametrize("shards", [8, 9, 40])
def test_the_last_look_has_all_shards(shards):
    seen = list(looks(shards))
    assert (seen[0], seen[-1]) == (FIRST_LOOK, shards)
    assert seen == sorted(set(seen))


# ---- the confidence sequence


def likelihood_ratio(t: float, shards: int, spread: float) -> float:
    """Density of t under effects drawn from N(0, spread), by integrating over them, over that under no effect."""
    effects = stats.norm(scale=np.sqrt(spread))
    mixed, _ = integrate.quad(
        lambda effect: stats.nct.pdf(t, shards - 1, effect * np.sqrt(shards)) * effects.pdf(effect),
        *(side * 8 * np.sqrt(spread) for side in (-1, 1)),
        points=[0, t / np.sqrt(shards)],
        epsabs=0,
        epsrel=1e-11,
        limit=200,
    )
    return mixed / stats.t.pdf(t, shards - 1)


@pytest.mark.parametrize("shards", [12, 20, 64])
def test_its_end_is_where_the_mixed_likelihood_ratio_is_twenty(shards):
    spread = (-2 * np.log(0.05) + np.log(1 - 2 * np.log(0.05))) / TARGET
    end = optimize.brentq(lambda t: np.log(0.05 * likelihood_ratio(t, shards, spread)), 2, 10, xtol=1e-12)
    assert abs(float(anytime_factor(shards)) - end) < 1e-9


def test_with_many_shards_it_is_the_asymptotic_confidence_sequence():
    """Waudby-Smith et al. 2024, eq. 12, in standard errors."""
    shards = 10**6
    rho = (-2 * np.log(0.05) + np.log(1 - 2 * np.log(0.05))) / TARGET
    boundary = np.sqrt(2 * (shards * rho + 1) / (shards * rho) * np.log(np.sqrt(shards * rho + 1) / 0.05))
    assert float(anytime_factor(shards)) == pytest.approx(boundary, rel=1e-4)


def test_more_shards_make_it_narrower_and_its_factor_is_least_near_its_target():
    factors = anytime_factor(np.arange(FIRST_LOOK, 1000)) / np.sqrt(np.arange(FIRST_LOOK, 1000))
    assert (np.diff(factors) < 0).all()
    assert TARGET < FIRST_LOOK + int(anytime_factor(np.arange(FIRST_LOOK, 1000)).argmin()) < 4 * TARGET


def test_every_value_is_possible_with_few_shards():
    assert anytime_interval(Estimate(0.2, 0.01, df=3)) == (-np.inf, np.inf)


@pytest.mark.parametrize("interval", [anytime_interval, width_interval])
def test_an_unknown_error_has_an_unknown_interval(interval):
    assert np.isnan(interval(Estimate(0.2, np.nan, df=15))).all()


def test_both_are_wider_than_the_usual_interval():
    shards = np.arange(FIRST_LOOK, 65)
    assert (anytime_factor(shards) > width_factor(shards)).all()
    assert (width_factor(shards) > USUAL).all()


# ---- coverage


@pytest.mark.parametrize("spread", [1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
def test_a_width_covers_in_95_percent_of_the_stops_whatever_the_spread(spread):
    """Means of normal values, looked at after every shard from the eighth on; the usual interval covers in 93 %."""
    values = spread * np.random.default_rng(0).normal(size=(20_000, 200))
    shards = np.arange(1, 201)
    means = values.cumsum(axis=1) / shards
    errors = np.sqrt(np.maximum(np.square(values).cumsum(axis=1) / shards - means**2, 0) / np.maximum(shards - 1, 1))
    seen = slice(FIRST_LOOK - 1, None)
    half = width_factor(shards[seen]) * errors[:, seen]
    assert (half[:, -1] <= 1).all()
    stop = (half <= 1).argmax(axis=1)
    draws = np.arange(len(stop))
    assert (np.abs(means[:, seen][draws, stop]) <= half[draws, stop]).mean() > 0.945


@pytest.fixture(scope="module")
def asked():
    return list(questions(POPULATIONS["low"], 150))


def test_sums_at_a_look_give_the_similarity_that_netsim_computes():
    population, shards = Population((0.5, 0.5, 0.6, 0.9), tails=0.3), 9
    shown = simulate(population, 2, shards)
    for row, drawn in enumerate(draw(np.random.default_rng([0, 0]), population, 2, shards)):
        for number in range(2):
            parts = [tuple(images[:, network] for network in range(4)) for images in drawn[number]]
            cells = similarity(parts, [(row, other) for other in range(4) if other != row]).values()
            expected = [
                np.mean([cell.cka_unbiased for cell in cells]),
                *np.mean([cell.leave_one_out_unbiased for cell in cells], axis=0),
            ]
            assert np.abs(shown[shards - FIRST_LOOK][row][number] - expected).max() < 1e-9


def test_the_interval_covers_where_a_sweep_stops(asked):
    every = np.ones(len(USUAL), dtype=bool)
    for question in asked:
        assert Outcome.of(question, question.factor, every).covered >= 0.92  # 0.94 in 1000 draws


def test_a_verdict_of_the_usual_interval_is_wrong_in_many_sweeps(asked):
    every = np.ones(len(USUAL), dtype=bool)
    equal = next(question for question in asked if kind_of(question) == "difference")
    assert abs(equal.looks.truth) < 1e-12
    assert Outcome.of(equal, USUAL, every).covered < 0.9
    assert Outcome.of(equal, equal.factor, every).always > 0.94


def test_the_true_value_of_a_row_is_that_of_many_images():
    population = POPULATIONS["middle"]
    shown = simulate(population, 4, 64)
    for row in range(4):
        seen = Looks.of([look[row] for look in shown], 0.0)
        assert abs(seen.values[:, -1].mean() - true_rows(population)[row]) < 4 * seen.errors[:, -1].mean() / 2
