"""Both heatmaps on the page, from one drawing: beside each other, or below each other on a narrow screen.

The drawing is shown as it is and, through windows on a part of it, once more as two pictures; a style sheet hides the
one or the other. A cell shows its errors when it is pointed at. Lengths are in points; y points down.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import escape

from netsim.report.canvas import Figure
from netsim.report.heatmaps import NUMBERED, OBSERVER_ROOM
from netsim.report.svg import inline
from netsim.results.findings import number
from netsim.results.matrices import SETS
from netsim.results.results import Kind, Results
from netsim.similarity.hsic import Estimator

ROW_MARGIN = 2
"""Room above and below the names of rows."""


class Box(NamedTuple):
    """Place of a panel in a drawing."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Panels:
    """One drawing of both heatmaps as markup: as a whole, and by panel.

    Attributes
    ----------
    whole
        The SVG of both panels.
    apart
        Set -> an SVG of its panel, with the names of rows; of the last one, with the colour scale.
    widths
        Set -> width of that SVG.
    """

    whole: str
    apart: dict[str, str]
    widths: dict[str, float]


def panels_of(figure: Figure, svg: str, results: Results, estimator: Estimator) -> Panels:
    """Take apart a drawing of `heatmaps` that was made without a width, given it as SVG, too."""
    width, height = figure.points
    first, second = (_box(figure, position, width, height) for position in range(2))
    key, middle = f"heatmaps-{estimator}", (first.right + second.left) / 2
    cells = "".join(_cells(results, name, estimator, box) for name, box in zip(SETS, (first, second), strict=True))
    drawing = inline(svg, key)
    start, end = drawing.index(">") + 1, drawing.rindex("</svg>")
    whole = f'{drawing[:start]}<g id="{key}-whole">{drawing[start:end]}{cells}</g></svg>'
    # names of columns are tilted, so those of the second panel begin below the first one
    slant = [(middle, first.bottom), (middle - (height - OBSERVER_ROOM - first.bottom), height - OBSERVER_ROOM)]
    edge = [(middle, 0.0), *slant, (middle, height - OBSERVER_ROOM), (middle, height)]
    rows = [(0.0, first.top - ROW_MARGIN), (first.left, first.top - ROW_MARGIN)]
    rows += [(first.left, first.bottom + ROW_MARGIN), (0.0, first.bottom + ROW_MARGIN)]
    moved = second.left - first.left
    natural = _window(key, "natural", [(0.0, 0.0), *edge, (0.0, height)])
    names = _window(key, "rows", rows)
    inverted = _window(key, "inverted", [(width, 0.0), *edge, (width, height)])
    widths = dict(zip(SETS, (middle, width - moved), strict=True))
    contents = dict(
        zip(SETS, (natural, f'{names}<g transform="translate({-moved:.6g} 0)">{inverted}</g>'), strict=True)
    )
    apart = {name: _svg(content, widths[name], height) for name, content in contents.items()}
    return Panels(whole, apart, widths)


def _svg(content: str, width: float, height: float) -> str:
    return f'<svg viewBox="0 0 {width:.6g} {height:.6g}" width="{width:.6g}pt" height="{height:.6g}pt">{content}</svg>'


def _window(key: str, name: str, corners: list[tuple[float, float]]) -> str:
    """Show the part of the drawing within a polygon."""
    points = " ".join(f"{x:.6g},{y:.6g}" for x, y in corners)
    clip = f'<clipPath id="{key}-{name}"><polygon points="{points}"/></clipPath>'
    return f'{clip}<g clip-path="url(#{key}-{name})"><use href="#{key}-whole"/></g>'


def _box(figure: Figure, position: int, width: float, height: float) -> Box:
    place = figure.axes[position].get_position()
    return Box(place.x0 * width, (1 - place.y1) * height, place.x1 * width, (1 - place.y0) * height)


def _cells(results: Results, set_name: str, estimator: Estimator, box: Box) -> str:
    """Cover each cell with its value, standard error and 95 % interval, shown where it is pointed at."""
    kinds: tuple[Kind, ...] = ("cka", "se", "low", "high")
    values, errors, low, high = (results.cells(set_name, estimator, kind=kind) for kind in kinds)
    if max(values.shape) > NUMBERED:
        return ""
    side = (box.right - box.left) / values.shape[1]
    covers = []
    for row, column in np.ndindex(*values.shape):
        value, error, *ends = (number(float(each[row, column])) for each in (values, errors, low, high))
        text = f"{results.networks[row]} → {results.everyone[column]}: {value}"
        if row != column:
            text += f" ± {error} ({' to '.join(ends)})"
        corner = f"M{box.left + column * side:.6g} {box.top + row * side:.6g}"
        covers.append(f'<path d="{corner}h{side:.6g}v{side:.6g}h-{side:.6g}z"><title>{escape(text)}</title></path>')
    return f'<g fill="none" stroke="none" pointer-events="all">{"".join(covers)}</g>'
