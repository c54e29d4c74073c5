"""The paper that figures are drawn on: sizes in points, text, colours. 72 points are an inch.

Figures are made without pyplot and its global state, so that threads can draw concurrently.
Margins are computed from the length of the names, not measured, so that the same input gives the same bytes.
"""

from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

from netsim.errors import SettingsError
from netsim.report.svg import INK, to_svg


class Figure(matplotlib.figure.Figure):
    """A figure that notebooks show by itself. Its axes have no background, so that a page may have any colour."""

    def _repr_svg_(self) -> str:
        return to_svg(self)

    @property
    def points(self) -> tuple[float, float]:
        """Width and height in points."""
        width, height = (72 * float(inches) for inches in self.get_size_inches())
        return width, height

    def add_axes(self, *args: Any, **options: Any) -> Axes:
        """Add axes as matplotlib does, without a background."""
        axes = super().add_axes(*args, **options)
        axes.patch.set_visible(False)
        return axes


NARROWEST = 60
"""Least width of the axes of a plot, in points."""

CENTIMETRES = 2.54 / 72
"""Centimetres in a point."""


def blank(width: float, height: float) -> Figure:
    """Return an empty figure of a size in points."""
    return Figure(figsize=(width / 72, height / 72), facecolor="white")


class TooNarrowError(SettingsError):
    """Width in points that is less than some content requires.

    Attributes
    ----------
    least
        Least width, in points.
    """

    def __init__(self, width: float, least: float, content: str) -> None:
        self.least = float(np.ceil(10 * least * CENTIMETRES)) / (10 * CENTIMETRES)
        least_centimetres, centimetres = self.least * CENTIMETRES, width * CENTIMETRES
        super().__init__(f"width must be at least {least_centimetres:.3g} cm for {content}, got {centimetres:.3g} cm")


def plot(
    across: float, high: float | None, margins: tuple[float, float, float, float], width: float | None
) -> tuple[Figure, Axes]:
    """Return a figure with axes of a size in points, square if `high` is None; `width` replaces that of the figure.

    Margins are left, right, bottom and top.

    Raises
    ------
    SettingsError
        If `width` leaves the axes less than `NARROWEST`.
    """
    left, right, bottom, top = margins
    if width is not None:
        if width - left - right < NARROWEST:
            raise TooNarrowError(width, left + right + NARROWEST, "a plot with these names")
        across = width - left - right
    high = across if high is None else high
    total, height = left + across + right, bottom + high + top
    figure = blank(total, height)
    return figure, figure.add_axes((left / total, bottom / height, across / total, high / height))


def text_at(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    offset: tuple[float, float],
    va: str,
    ha: str = "center",
    data: bool = False,
) -> Text:
    """Write text at (x, y) of the axes, or of the data, moved by `offset` points; `$` starts no formula."""
    return axes.annotate(
        text,
        (x, y),
        xycoords="data" if data else "axes fraction",
        xytext=offset,
        textcoords="offset points",
        fontsize=size,
        color=INK,
        ha=ha,
        va=va,
        parse_math=False,
        annotation_clip=False,
    )
