"""The cost of an answer (benchmarks/answer.py), on made-up representations."""

import numpy as np
import pytest

from benchmarks.answer import PUBLISHED, Way, fewest, half, ways
from netsim.settings import InversionSettings
from netsim.similarity.cka import similarity


@pytest.fixture
def way() -> Way:
    """Twelve shards of two networks that share half of what they represent."""
    rng, made = np.random.default_rng(0), Way("made up", InversionSettings())
    for number in range(12):
        shared = rng.normal(size=(8, 4))
        seen = {(row, column): shared + rng.normal(size=(8, 4)) for row in "ab" for column in "ab"}
        made.seen.append(seen)
        made.seconds.append(1.0 + number)
        made.losses.append(np.full(8, 0.05 if number < 9 else 0.2))
    return made


def test_the_mean_is_that_of_both_cells_over_all_images_and_without_each_shard(way):
    def mean(shards: list[int]) -> float:
        cells = []
        for row, column in ("ab", "ba"):
            rows = [{name: way.seen[k][row, name] for name in "ab"} for k in shards]
            cells.append(similarity(rows, [(row, column)])[row, column].cka_unbiased)
        return sum(cells) / 2

    values = way.replicates(10)
    assert values[0] == pytest.approx(mean(list(range(10))))
    assert values[1:] == pytest.approx([mean([k for k in range(10) if k != left_out]) for left_out in range(10)])


def test_the_fewest_shards_are_the_first_whose_interval_is_narrow_enough(way):
    widths = {shards: half(way.mean(shards).interval) for shards in range(8, 13)}
    goal = sorted(widths.values())[1]
    assert fewest(way, goal) == min(shards for shards, width in widths.items() if width <= goal)
    assert fewest(way, 0.9 * min(widths.values())) is None
    assert way.cost(3) == 6.0 and way.above == 0.25


def test_the_published_steps_come_first_and_every_preset_stops_at_every_loss():
    names = [way.name for way in ways([0.1, 0.05], 2000)]
    assert names[0] == PUBLISHED and len(set(names)) == 5
