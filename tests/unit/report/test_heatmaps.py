"""Heatmaps show the values of the results, legibly, at any width."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from netsim.errors import SettingsError
from netsim.report import heatmaps
from netsim.results.findings import mean_text
from netsim.results.results import Results
from support.results import make_results, with_inverted


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


def test_both_heatmaps_have_one_colour_scale(results):
    for estimator in ("unbiased", "biased"):
        natural, inverted, bar = heatmaps.heatmaps(results, estimator).axes
        assert [axes.collections[0].get_clim() for axes in (natural, inverted, bar)] == [(0, 1)] * 3
        assert len({axes.collections[0].get_cmap().name for axes in (natural, inverted, bar)}) == 1


def test_rows_are_through_from_the_top_and_columns_observer(results):
    for estimator in ("unbiased", "biased"):
        values = results.cells("inverted", estimator)
        natural, inverted, _ = heatmaps.heatmaps(results, estimator).axes
        assert inverted.get_ylim() == (2.5, -0.5)
        assert (natural.get_ylabel(), inverted.get_xlabel()) == ("through", "observer")
        assert [label.get_text() for label in natural.get_yticklabels()] == list(results.networks)
        shown = {text.get_position(): text.get_text() for text in inverted.texts}
        cells = itertools.product(range(3), range(3))
        assert all(shown[column, row] == f"{values[row, column]:.2f}" for row, column in cells)
        np.testing.assert_array_equal(inverted.collections[0].get_array(), values)


def test_networks_that_only_look_are_further_columns():
    results = make_results(3, n=64, observers=("seer", "judge"))
    natural, inverted, _ = heatmaps.heatmaps(results).axes
    for axes, kind in ((natural, "natural"), (inverted, "inverted")):
        assert [label.get_text() for label in axes.get_xticklabels()] == [*results.networks, "seer", "judge"]
        np.testing.assert_array_equal(axes.collections[0].get_array(), results.cells(kind))
    assert [label.get_text() for label in natural.get_yticklabels()] == list(results.networks)


def test_numbers_stand_out_from_every_cell():
    for value in (*np.linspace(0, 1, 201), np.nan):
        cell = to_rgb(heatmaps.UNDEFINED) if np.isnan(value) else heatmaps.COLORS(value)[:3]
        dark, light = sorted(heatmaps.luminance(color) + 0.05 for color in (cell, to_rgb(heatmaps.ink_on(value))))
        assert light / dark > 4.5


def test_figures_grow_with_layers_and_are_not_square():
    figure = heatmaps.layer_heatmaps((("a", "b"), ("c", "d", "e")), ("one", "two"), {"natural": np.eye(2, 3)})
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["c", "d", "e"]


def test_cells_shrink_with_the_number_of_networks_but_stay_legible():
    assert [heatmaps.cell_points(count) for count in (1, 4, 9, 12, 25, 100)] == [60, 60, 30, 22, 22, 12]


@pytest.mark.parametrize("count", [heatmaps.NUMBERED, heatmaps.NUMBERED + 1])
def test_cells_have_numbers_as_long_as_they_can_be_read(count):
    natural, *_ = heatmaps.heatmaps(make_results(count, n=64)).axes
    numbers = [text.get_text() for text in natural.texts if re.fullmatch(r"[−-]?(1\.0|\.\d\d)", text.get_text())]
    assert len(numbers) == (count**2 if count == heatmaps.NUMBERED else 0)
    assert len(natural.get_yticklabels()) == count


def texts_of(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_colour_scale_has_the_chosen_ends_and_a_tip_where_values_are_beyond(results):
    natural, _, bar = heatmaps.heatmaps(with_inverted(results, 0, 1, -0.2), limits=(0.1, 0.6)).axes
    assert natural.collections[0].get_clim() == bar.collections[0].get_clim() == bar.get_ylim() == (0.1, 0.6)
    assert [patch.get_xy()[:, 1].max() > 0.6 for patch in bar.patches] == [False, True]
    *_, whole = heatmaps.heatmaps(results).axes
    assert not whole.patches and [label.get_text() for label in whole.get_yticklabels()][:2] == ["0.0", "0.2"]
    assert heatmaps.ink_on(0.6, (0.1, 0.6)) == heatmaps.ink_on(1.0) == "#000000"
    assert heatmaps.ink_on(0.3, (0.3, 1.3)) == heatmaps.ink_on(0.0) == "#ffffff"


@pytest.mark.parametrize(
    ("count", "width", "stacked"), [(3, 241, True), (3, 504, False), (11, 504, False), (11, 241, True)]
)
def test_a_figure_is_as_wide_as_was_chosen_and_its_names_stay_readable(count, width, stacked):
    figure = heatmaps.heatmaps(make_results(count, n=64), width=width)
    assert figure.get_size_inches()[0] * 72 == pytest.approx(width)
    natural, inverted, _ = figure.axes
    above = natural.get_position().y0 > inverted.get_position().y1
    assert above == stacked == heatmaps.is_stacked(make_results(count, n=64), width)
    sizes = {label.get_fontsize() for label in (*natural.get_xticklabels(), *natural.get_yticklabels())}
    assert min(sizes) >= heatmaps.SMALLEST
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.get_size_inches()[0] + 0.01
    assert len(texts_of(natural)) == (1 if count == 11 and stacked else count**2 + 1)


def test_a_width_with_no_room_for_names_is_refused_with_the_least_one(results):
    with pytest.raises(
        SettingsError, match=r"width must be at least (\d\.\d) cm for 3 columns .*, got 3 cm"
    ) as refused:
        heatmaps.heatmaps(results, width=3 / 2.54 * 72)
    assert heatmaps.heatmaps(results, width=refused.value.least).get_size_inches()[0] * 72 == refused.value.least


def test_the_mean_above_a_panel_has_the_digits_that_it_has_everywhere(results):
    for axes, name in zip(heatmaps.heatmaps(results).axes, ("natural", "inverted"), strict=False):
        assert texts_of(axes)[-1] == f"mean {mean_text(results, name, 'unbiased')}"
