"""Every figure of a report, drawn once, and its files: SVG for the page and editors, PDF for LaTeX, PNG for slides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from markupsafe import Markup

from netsim.report.canvas import CENTIMETRES, Figure, TooNarrowError
from netsim.report.figures import SHOWN_CHANNELS, dendrogram, gallery_figure, loss_curves, network_map
from netsim.report.heatmaps import heatmaps, layer_heatmaps
from netsim.report.options import ReportOptions
from netsim.report.svg import inline, to_pdf, to_png, to_svg
from netsim.results.gallery import Gallery
from netsim.results.layers import LayerSimilarity, LayerSpec
from netsim.results.matrices import ESTIMATORS
from netsim.results.results import Results
from netsim.similarity.hsic import Estimator, validate_estimator

Layers = Mapping[str, tuple[LayerSpec, Mapping[str, LayerSimilarity]]]
"""Comparisons of layers by `stem_of`: what was compared, and similarities by set."""


Draw = Callable[..., Any]
"""Draws a figure of a `width` in points."""


@dataclass(frozen=True)
class Drawing:
    """A figure, saved as SVG no more than once."""

    figure: Figure

    @cached_property
    def svg(self) -> str:
        """The figure as an SVG file."""
        return to_svg(self.figure)

    def inline(self, prefix: str) -> dict[str, Any]:
        """Return the figure for a template: `svg` whose ids start with a prefix, and its `width` in points."""
        return {"svg": Markup(inline(self.svg, prefix)), "width": self.figure.points[0]}

    def files(self, name: str, title: str = "") -> dict[str, bytes]:
        """Render the figure in every format; return file name -> content."""
        return {
            f"{name}.svg": self.svg.encode(),
            f"{name}.png": to_png(self.figure, dpi=300),
            f"{name}.pdf": to_pdf(self.figure, title),
        }


def estimators_of(options: ReportOptions) -> tuple[Estimator, Estimator]:
    """Return the chosen estimator, then the other one."""
    chosen = validate_estimator(options.estimator)
    return chosen, next(each for each in ESTIMATORS if each != chosen)


def heatmaps_name(estimator: Estimator, options: ReportOptions) -> str:
    """Name the heatmaps of an estimator; those of the chosen one are `heatmaps`."""
    return "heatmaps" if estimator == options.estimator else f"heatmaps-{estimator}"


def figures_of(results: Results, layers: Layers, options: ReportOptions) -> dict[str, Draw]:
    """List every figure of the page by name, as what draws it."""
    figures: dict[str, Draw] = {
        heatmaps_name(estimator, options): partial(heatmaps, results, estimator, limits=options.limits)
        for estimator in estimators_of(options)
    }
    figures["losses"] = partial(loss_curves, results)
    for name, (names, tree) in results.inference.clusters.items():
        title = f"{name.capitalize()} images"
        figures[f"clusters-{name}"] = partial(dendrogram, names, tree, title)
        figures[f"map-{name}"] = partial(network_map, names, results.inference.maps[name][1], title)
    return figures | {stem: partial(draw_layers, *each, options) for stem, each in layers.items()}


def draw(results: Results, layers: Layers, options: ReportOptions) -> dict[str, Drawing]:
    """Draw every figure of the page, each as wide as its content asks."""
    return {name: Drawing(make()) for name, make in figures_of(results, layers, options).items()}


def draw_layers(
    spec: LayerSpec,
    similarities: Mapping[str, LayerSimilarity],
    options: ReportOptions,
    *,
    width: float | None = None,
) -> Figure:
    """Draw the similarity of layers, a panel for each set."""
    panels = {name.replace("inverted/", "inverted through "): each.cka for name, each in similarities.items()}
    return layer_heatmaps(spec.layers, spec.networks, panels, limits=options.limits, width=width)


def stem_of(spec: LayerSpec) -> str:
    """Name the files of a comparison of layers after its networks; the key differs for other layers."""
    first, second = spec.networks
    return f"layers-{first}-{second}-{spec.activations}-{spec.key[:6]}"


def figure_files(
    drawings: Mapping[str, Drawing],
    results: Results,
    gallery: Gallery,
    layers: Layers,
    options: ReportOptions,
    *,
    note: Callable[[str], None],
) -> dict[str, bytes]:
    """Render every figure, and the gallery, in every format.

    Parameters
    ----------
    drawings
        Those of the page, which are used again unless a width is chosen.
    results, gallery, layers
        What the report shows.
    options
        Its options.
    note
        Called with a sentence for each figure that is wider than was chosen, because its content is.

    Raises
    ------
    SettingsError
        If the heatmaps need more than the chosen width.
    """
    every = dict(drawings)
    figures: dict[str, Draw] = {} if options.width is None else figures_of(results, layers, options)
    if gallery.seed.shape[1] in SHOWN_CHANNELS:
        figures["gallery"] = partial(gallery_figure, gallery)
    for name, make in figures.items():
        try:
            figure = make(width=options.points)
        except TooNarrowError as error:
            if name.startswith("heatmaps"):
                raise
            figure = make(width=error.least)
            note(f"{name} is {error.least * CENTIMETRES:.3g} cm wide: {error}")
        every[name] = Drawing(figure)
    return {file: content for name, each in every.items() for file, content in each.files(name, options.title).items()}
