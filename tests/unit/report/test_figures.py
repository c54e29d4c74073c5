"""Figures show the values of the results, legibly."""

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from netsim.report import figures, svg
from netsim.report.figures import gallery_figure
from netsim.report.heatmaps import luminance
from netsim.report.svg import to_webp
from netsim.results.results import Results
from support.results import make_gallery, make_results, with_loss


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


def test_lines_stand_out_from_the_light_page_and_the_dark_one():
    template = (Path(figures.__file__).parent / "templates" / "style.css.j2").read_text()
    pages = re.findall(r"--page: (#[0-9a-f]{6})", template)
    assert len(pages) == 2
    for line, page in itertools.product(figures.LINES, pages):
        dark, light = sorted(luminance(to_rgb(color)) + 0.05 for color in (line, page))
        assert light / dark >= 3, (line, page)


def test_loss_curves_draw_the_history_and_the_tolerance(results):
    axes = figures.loss_curves(results).axes[0]
    assert axes.get_yscale() == "log"
    for name, line in zip(results.networks, axes.lines, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), results.loss[name].history_iterations)
        np.testing.assert_array_equal(line.get_ydata(), results.loss[name].history)
    assert any(np.all(np.asarray(line.get_ydata()) == results.tolerance) for line in axes.lines)
    assert {text.get_text() for text in axes.texts} == {*results.networks, "tolerance 0.05"}


def test_losses_without_a_logarithm_leave_the_others_drawn(results):
    history = results.loss["densenet"].history
    odd = with_loss(results, "densenet", history=np.where(np.arange(len(history)) % 2, 0.0, history))
    odd = with_loss(odd, "mobilenet", history=np.full(len(history), np.nan))
    words = {text.get_text() for text in figures.loss_curves(odd).axes[0].texts}
    assert words == {"densenet", "resnext", "tolerance 0.05"}
    assert "<svg" in svg.to_svg(figures.loss_curves(odd))


def test_spread_places_are_the_nearest_that_do_not_overlap(rng):
    grid = np.linspace(0, 1, 41)
    apart = np.array([p for p in itertools.combinations(grid, 3) if min(p[1] - p[0], p[2] - p[1]) >= 0.2 - 1e-12])
    for wanted in np.sort(np.round(rng.random((50, 3)) * 40) / 40):
        places = figures.spread(wanted, gap=0.2)
        assert (np.diff(places) >= 0.2 - 1e-12).all()
        assert 0 <= places.min() <= places.max() <= 1 + 1e-12
        assert ((places - wanted) ** 2).sum() <= ((apart - wanted) ** 2).sum(axis=1).min() + 1e-12


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 224, 224)])
def test_the_gallery_as_one_picture_is_small_and_has_every_image(shape):
    """Artifacts in the UI come with the page that lists them. 11 columns and 4 rows of tiles, and room for names."""
    picture = to_webp(gallery_figure(make_gallery(make_results(count=9), shape=shape)))
    with Image.open(io.BytesIO(picture)) as image:
        width, height = image.size
    assert width > 11 * 58 and height > 4 * 58 and len(picture) < 150_000


def test_the_tiles_of_the_gallery_are_the_images(results):
    """Those of 28 pixels twice as large, those of 224 a quarter as large."""
    gallery = make_gallery(results, shape=(1, 28, 28))
    (axes,) = gallery_figure(gallery).axes
    pixels = axes.get_images()[0].get_array()
    np.testing.assert_array_equal(pixels[58 : 58 + 56 : 2, 58 : 58 + 56 : 2, 0], gallery.target[1, 0])
    large = make_gallery(results, shape=(3, 224, 224))
    pixels = gallery_figure(large).axes[0].get_images()[0].get_array()
    means = large.seed[0].reshape(3, 56, 4, 56, 4).mean(axis=(2, 4)).transpose(1, 2, 0)
    np.testing.assert_allclose(pixels[:56, :56], means, atol=1)
    assert gallery_figure(make_gallery(results, shape=(2, 28, 28))) is None


def test_labels_with_too_little_room_keep_their_order_and_their_gaps():
    np.testing.assert_allclose(figures.spread(np.array([0.1, 0.1, 0.9]), gap=0.6), [0, 0.6, 1.2])
    np.testing.assert_allclose(figures.spread(np.array([0.2, 0.2, 0.9]), gap=0.1), [0.15, 0.25, 0.9])
    assert figures.spread(np.zeros(0), gap=0.1).shape == (0,)


def test_a_tree_names_every_network_once_and_joins_them_where_they_are_joined():
    names, tree = make_results(9).inference.clusters["inverted"]
    figure = figures.dendrogram(names, tree, "Inverted images")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [names[leaf] for leaf in tree.order]
    joined = [line.get_xdata()[1] for line in axes.lines]
    assert joined == [cluster.height for cluster in tree.clusters]
    ends = [sorted((line.get_ydata()[0], line.get_ydata()[3])) for line in axes.lines]
    for cluster, (low, high) in zip(tree.clusters, ends, strict=True):
        places = [tree.order.index(member) for member in cluster.members]
        assert min(places) <= low < high <= max(places)
    shares = [f"{100 * each.images:.0f}/{100 * each.networks:.0f}" for each in tree.clusters[:-1]]
    assert sorted(text.get_text() for text in axes.texts) == sorted(shares)


def test_a_map_has_each_network_at_its_place_in_a_circle_of_its_spread():
    names, places = make_results(9).inference.maps["natural"]
    (axes,) = figures.network_map(names, places, "Natural images").axes
    drawn = np.array([[line.get_xdata()[0], line.get_ydata()[0]] for line in axes.lines])
    assert np.array_equal(drawn, places.positions)
    assert [circle.radius for circle in axes.patches] == places.spread.tolist()
    assert sorted(text.get_text() for text in axes.texts) == sorted(names)
    assert f"{100 * places.shown:.0f} %" in axes.get_xlabel()
    low, high = axes.get_xlim()
    assert low < (drawn - places.spread[:, None]).min() and high > (drawn + places.spread[:, None]).max()


def test_names_of_trees_and_maps_start_no_formula_and_are_in_the_picture():
    name = "a$b$" * 8
    names, tree = (name, *make_results(3).networks[1:]), make_results(3).inference.clusters["natural"][1]
    for figure in (
        figures.dendrogram(names, tree, "t"),
        figures.network_map(names, make_results(3).inference.maps["natural"][1], "t"),
    ):
        assert name in svg.to_svg(figure)
        figure.canvas.draw()
        box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height
