"""Heatmaps of similarity.

They follow the published figure (Jones et al. 2022, https://proceedings.mlr.press/v180/jones22a.html): natural beside
inverted, one colour scale, row = network inverted through, column = observer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from netsim.report.canvas import Figure, TooNarrowError, blank, text_at
from netsim.report.svg import INK
from netsim.results.findings import mean_text, number
from netsim.results.matrices import SETS
from netsim.results.results import Results
from netsim.similarity.hsic import EstimatorName, validate_estimator

UNDEFINED = "#c9cdd2"
"""Colour of a cell that is NaN."""

COLORS = matplotlib.colormaps["viridis"].with_extremes(bad=UNDEFINED)
"""Colour map of the heatmaps: perceptually uniform, and safe for colour blindness."""

NUMBERED = 40
"""Most rows and columns of a heatmap whose cells have numbers: thousands are not read, and take minutes to draw."""

OBSERVER_ROOM = 15
"""Points below the names of columns, for what the columns are."""

NUMBER_CELL = 13
"""Least side of a cell with a number, in points: numbers are then 5 points high."""

SMALLEST = 5.0
"""Least size of names in heatmaps, in points."""

Limits = tuple[float, float]

WHOLE: Limits = (0.0, 1.0)
"""Ends of the colour scale unless others are chosen."""


def heatmaps(
    results: Results,
    estimator: EstimatorName = "unbiased",
    *,
    limits: Limits = WHOLE,
    width: float | None = None,
) -> Figure:
    """Draw natural and inverted similarity, with the values in the cells where they can be read.

    Both have one colour scale. A value beyond its ends, as the unbiased estimator may give below 0, has the colour of
    the end; NaN is grey with an en dash.

    Parameters
    ----------
    results
        The results of a run.
    estimator
        "unbiased" or "biased".
    limits
        Ends of the colour scale.
    width
        Width of the figure in points (72 to an inch). Where both matrices do not fit beside each other, the inverted
        one is below the natural one. By default, the figure grows with the number of networks.

    Raises
    ------
    SettingsError
        If names would be smaller than `SMALLEST` points.
    """
    names, columns, estimator = results.networks, results.everyone, validate_estimator(estimator)
    arranged = _matrices(results, width)
    figure = arranged.figure()
    for position, set_name in enumerate(SETS):
        axes = figure.add_axes(arranged.panel(position))
        row_names = position == 0 or arranged.stacked
        _panel(axes, results.cells(set_name, estimator), columns, names, arranged, row_names=row_names, limits=limits)
        axes.set_title(f"{set_name.capitalize()} images\n", fontsize=11, color=INK, fontweight="bold")
        text_at(axes, 0.5, 1, f"mean {mean_text(results, set_name, estimator)}", size=9, offset=(0, 6), va="bottom")
    values = np.stack([results.cells(name, estimator) for name in SETS])
    label = f"linear CKA, {estimator}, n = {results.n:,}"
    _color_bar(figure.add_axes(arranged.bar), values, limits, arranged, label=label)
    return figure


def _matrices(results: Results, width: float | None) -> "Arrangement":
    """Arrange both matrices of results."""
    names, columns = results.networks, results.everyone
    label = 8.0 if len(columns) <= 12 else 9.0
    return arrange(names, columns, len(SETS), top=44, cell=cell_points(len(columns)), label=label, width=width)


def is_stacked(results: Results, width: float | None) -> bool:
    """Return True if `heatmaps` of this width have the inverted matrix below the natural one."""
    return _matrices(results, width).stacked


def layer_heatmaps(
    layers: tuple[tuple[str, ...], tuple[str, ...]],
    networks: tuple[str, str],
    panels: Mapping[str, np.ndarray],
    *,
    limits: Limits = WHOLE,
    width: float | None = None,
) -> Figure:
    """Draw one heatmap per set: layers of the first network (rows, input on top) and of the second (columns).

    `panels` maps titles to unbiased CKA (layers of the first, layers of the second); `limits` and `width` are those of
    `heatmaps`.
    """
    rows, columns = layers
    cell = cell_points(max(len(rows), len(columns)))
    arranged = arrange(rows, columns, len(panels), top=34, cell=cell, label=8.0, width=width)
    figure = arranged.figure()
    for position, (title, values) in enumerate(panels.items()):
        axes = figure.add_axes(arranged.panel(position))
        row_names = position == 0 or arranged.stacked
        room = arranged.cell * arranged.columns + 24
        axes.set_title(title, fontsize=min(10, room / (0.7 * len(title))), color=INK, fontweight="bold")
        _panel(axes, values, columns, rows, arranged, row_names=row_names, limits=limits, axis_labels=networks)
    values = np.stack([*panels.values()])
    _color_bar(figure.add_axes(arranged.bar), values, limits, arranged, label="unbiased CKA")
    return figure


def cell_points(networks: int) -> int:
    """Return the side of a cell in points: 60 for few networks, 30 for nine, at least 22, so that the figure grows.

    Without room for numbers, cells are as high as names.
    """
    return int(np.clip(270 / networks, 22, 60)) if networks <= NUMBERED else 12


@dataclass(frozen=True)
class Arrangement:
    """Places of equal panels and a colour bar in a figure; lengths are in points.

    Attributes
    ----------
    panels, rows, columns
        Number of panels, and of rows and columns of each.
    stacked
        True if panels are below each other.
    cell
        Side of a cell.
    label
        Size of names.
    left, bottom, top, right
        Room for the names of rows, for those of columns, for a title, and for the colour bar.
    gap
        Room between panels that are beside each other.
    """

    panels: int
    rows: int
    columns: int
    stacked: bool
    cell: float
    label: float
    left: float
    bottom: float
    top: float
    right: float
    gap: float = 24

    @property
    def width(self) -> float:
        """Width of the figure."""
        beside = 1 if self.stacked else self.panels
        return self.left + beside * (self.cell * self.columns + self.gap) - self.gap + self.right

    @property
    def height(self) -> float:
        """Height of the figure."""
        return (self.panels if self.stacked else 1) * self._line

    @property
    def _line(self) -> float:
        """Height of a panel with its title and names."""
        return self.bottom + self.cell * self.rows + self.top

    @property
    def bar(self) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of the colour bar, as fractions of the figure."""
        left = self.width - self.right + 14
        return self._fractions(left, self.bottom, 10, self.height - self.bottom - self.top)

    def panel(self, position: int) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a panel, as fractions of the figure."""
        across, down = (0, position) if self.stacked else (position, 0)
        left = self.left + across * (self.cell * self.columns + self.gap)
        bottom = self.height - (down + 1) * self._line + self.bottom
        return self._fractions(left, bottom, self.cell * self.columns, self.cell * self.rows)

    def figure(self) -> Figure:
        """Return an empty figure of this size."""
        return blank(self.width, self.height)

    def _fractions(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        return x / self.width, y / self.height, width / self.width, height / self.height


def arrange(
    rows: Sequence[str],
    columns: Sequence[str],
    panels: int,
    *,
    top: float,
    cell: float,
    label: float,
    width: float | None = None,
) -> Arrangement:
    """Arrange panels with these names: with cells of a size or, given a `width` in points, as large as it allows.

    Panels are beside each other if cells can then hold numbers, else below each other. Names are as large as `label`,
    or as the cells that they belong to.

    Raises
    ------
    SettingsError
        If names would be smaller than `SMALLEST` points.
    """

    def with_label(size: float, stacked: bool) -> Arrangement:
        row_room, column_room = (16 + round(0.62 * size * max(map(len, names))) for names in (rows, columns))
        margins = row_room + 24, round(0.65 * column_room) + 24, top, 44 if stacked else 62
        places = Arrangement(panels, len(rows), len(columns), stacked, cell, size, *margins)
        if width is None:
            return places
        cells = (1 if stacked else panels) * len(columns)
        return replace(places, cell=(width - (places.width - cell * cells)) / cells)

    beside = with_label(label, False)
    if width is None or beside.cell >= NUMBER_CELL:
        return beside
    sizes = np.arange(label, SMALLEST - 0.25, -0.5)
    for size in map(float, sizes):
        stacked = with_label(size, True)
        if stacked.cell >= 1.1 * size:
            return stacked
    smallest = replace(stacked, cell=1.1 * SMALLEST)
    raise TooNarrowError(width, smallest.width, f"{len(columns):,} columns and these names")


def _panel(
    axes: Axes,
    values: np.ndarray,
    columns: tuple[str, ...],
    rows: tuple[str, ...],
    arranged: Arrangement,
    *,
    row_names: bool,
    limits: Limits,
    axis_labels: tuple[str, str] = ("through", "observer"),
) -> None:
    """Draw one matrix, first row on top; in the published figure rows run upwards."""
    across, down = len(columns), len(rows)
    count = max(across, down)
    # Above 16 networks, vector cells would be most of the file; as pixels they take little.
    axes.pcolormesh(
        np.arange(across + 1) - 0.5,
        np.arange(down + 1) - 0.5,
        np.ma.masked_invalid(values),
        cmap=COLORS,
        vmin=limits[0],
        vmax=limits[1],
        edgecolors="white" if count <= 16 else "none",
        linewidth=0.5,
        rasterized=count > 16,
        clip_on=False,
    )
    axes.set(xlim=(-0.5, across - 0.5), ylim=(down - 0.5, -0.5), xticks=range(across), yticks=range(down))
    axes.tick_params(length=0, pad=4, labelsize=arranged.label, labelcolor=INK, labelleft=row_names)
    axes.set_xticklabels(columns, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    if row_names:
        axes.set_yticklabels(rows, parse_math=False)
        axes.set_ylabel(axis_labels[0], fontsize=9, color=INK, labelpad=8)
    axes.set_xlabel(axis_labels[1], fontsize=9, color=INK)
    axes.xaxis.set_label_coords(0.5, -(arranged.bottom - OBSERVER_ROOM) / (arranged.cell * down))
    axes.spines[:].set_visible(False)
    if count <= NUMBERED and arranged.cell >= NUMBER_CELL:
        short = count > 12 or arranged.cell < 20
        size = 0.38 * arranged.cell if short else min(0.31 * arranged.cell, 12)
        _cell_numbers(axes, values, limits, size=size, short=short)


def _cell_numbers(axes: Axes, values: np.ndarray, limits: Limits, *, size: float, short: bool) -> None:
    for (row, column), value in np.ndenumerate(values):
        text = number(value, 2)
        if short:  # small cells have room for .64, not for 0.64
            text = text.replace("1.00", "1.0").replace("0.", ".")
        axes.text(
            column,
            row,
            text,
            size=size,
            color=ink_on(value, limits),
            ha="center",
            va="center_baseline",
            parse_math=False,
        )


def ink_on(value: float, limits: Limits = WHOLE) -> str:
    """Return black or white, whichever contrasts more with the cell of this similarity (WCAG 2.1)."""
    low, high = limits
    share = float(np.clip((value - low) / (high - low), 0, 1))
    background = COLORS(share)[:3] if np.isfinite(value) else to_rgb(UNDEFINED)
    light = luminance(background)
    return "#000000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#ffffff"


def luminance(rgb: tuple[float, ...]) -> float:
    """Compute the relative luminance, in [0, 1], of an sRGB colour (https://www.w3.org/TR/WCAG21/)."""
    channels = np.asarray(rgb)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _color_bar(axes: Axes, values: np.ndarray, limits: Limits, arranged: Arrangement, *, label: str) -> None:
    """Draw the colour scale, with a tip at an end that values lie beyond."""
    low, high = limits
    steps = np.linspace(low, high, 65)
    middles = (steps[:-1] + steps[1:]) / 2
    axes.pcolormesh([0, 1], steps, middles[:, None], cmap=COLORS, vmin=low, vmax=high, rasterized=True)
    height = axes.get_position().height * arranged.height
    tip = 8 * (high - low) / height
    beyond = beyond_limits(values, limits)
    for end, color, points_to in ((low, COLORS(0.0), low - tip), (high, COLORS(1.0), high + tip)):
        if beyond["low" if end == low else "high"]:
            axes.fill((0, 1, 0.5), (end, end, points_to), color=color, linewidth=0, clip_on=False)
    ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    digits = 1 if np.allclose(np.round(ticks, 1), ticks) else 2
    axes.set(ylim=limits, xticks=[], yticks=ticks)
    axes.set_yticklabels([number(tick, digits) for tick in ticks])
    axes.yaxis.tick_right()
    axes.tick_params(length=2, width=0.5, color=INK, labelsize=8, labelcolor=INK)
    axes.spines[:].set_visible(False)
    if arranged.stacked or 0.62 * 9 * len(label) > height:
        text_at(axes, 0, 1, "CKA", size=8, offset=(0, 11), va="bottom", ha="left")
        return
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(label, fontsize=9, color=INK, labelpad=6)


def beyond_limits(values: np.ndarray, limits: Limits) -> dict[str, bool]:
    """Tell of either end, "low" and "high", whether values lie beyond it."""
    return {"low": bool((values < limits[0]).any()), "high": bool((values > limits[1]).any())}
