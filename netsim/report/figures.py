"""The figures of reports, as pure functions of results: curves, clusters, maps and the gallery.

The `width` of each is that of the whole figure in points, 72 to an inch; by default it is as wide as its content asks.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from PIL import Image

from netsim.report.canvas import Figure, TooNarrowError, blank, plot, text_at
from netsim.report.svg import INK
from netsim.results.findings import number
from netsim.results.gallery import Gallery
from netsim.results.results import Results
from netsim.statistics.clusters import Clusters, NetworkMap
from netsim.statistics.slopes import ByEps

LINES = ("#0b7fc0", "#d1495b", "#1a8f6a", "#b3701a", "#8a63d2", "#5f7f1e", "#c2488f", "#3f8f9f", "#777777")
"""Colours of loss curves: relative luminance 0.14 to 0.29, so at least 3:1 from a white and from a near-black page."""

Dashes = str | tuple[int, tuple[float, ...]]

DASHES: tuple[Dashes, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))
"""Line styles of loss curves; the next one is used when all colours are."""

TILE = 56
"""Side of a gallery image in points, and in pixels with `to_webp`; 28 and 224 are a whole multiple or fraction."""

SHOWN_CHANNELS = (1, 3)
"""Numbers of channels of images that can be shown."""

SMALLEST_TILE = 20
"""Least side of a gallery image, in points."""

GAP = 2
"""Space between gallery images in points."""

# ---- loss curves ------------------------------------------------------------------------------------------------


class End(NamedTuple):
    """The last point of a line, and its style."""

    x: float
    y: float
    color: str
    dashes: Dashes


def loss_curves(results: Results, *, width: float | None = None) -> Figure:
    """Draw median relative loss by iteration, one labelled line per network, and the tolerance; log y axis.

    A loss of 0 has no logarithm: it is a gap in the line, and a network without a positive loss has no line. `width` is
    that of the figure in points.
    """
    names = results.networks
    lead = 18 if len(names) <= 12 else 60  # points from a line to its name
    left, right, bottom, top = 58, lead + 12 + round(0.62 * 8 * max(map(len, names))), 40, 12
    figure, axes = plot(420, max(230, 12 * len(names)), (left, right, bottom, top), width)
    _loss_axes(axes)

    ends: dict[str, End] = {}
    for index, name in enumerate(names):
        loss, color = results.loss[name], LINES[index % len(LINES)]
        history = np.where(np.isfinite(loss.history) & (loss.history > 0), loss.history, np.nan)
        dashes = DASHES[(index // len(LINES)) % len(DASHES)]
        axes.plot(loss.history_iterations, history, color=color, linewidth=1.4, linestyle=dashes)
        drawn = np.flatnonzero(np.isfinite(history))
        if len(drawn):
            ends[name] = End(float(loss.history_iterations[drawn[-1]]), float(history[drawn[-1]]), color, dashes)
    if results.tolerance > 0:
        axes.axhline(results.tolerance, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
    if ends:
        _fix_limits(axes, last=max(end.x for end in ends.values()))
        _label_lines(axes, ends, lead=lead)
    if results.tolerance > 0:
        text = f"tolerance {results.tolerance:g}"
        text_at(axes, 0, results.tolerance, text, size=8, offset=(4, 3), va="bottom", ha="left", data=True)
    return figure


def _loss_axes(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.set_xlabel("iteration", fontsize=9, color=INK)
    axes.set_ylabel("relative loss, median over images", fontsize=9, color=INK)
    axes.tick_params(which="both", labelsize=8, labelcolor=INK, color=INK, width=0.6)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=INK, linewidth=0.6)


def _fix_limits(axes: Axes, *, last: float) -> None:
    """Extend the axes to a tick above and below the data, so that a narrow range has a number on its axis."""
    low, high = axes.get_ylim()
    axes.set(xlim=(0, max(last, 1)), ylim=(min(low, 10 ** np.floor(np.log10(low * 1.5))), max(high, 1.1)))


def _label_lines(axes: Axes, ends: dict[str, End], *, lead: float) -> None:
    """Write each name at the end of its line, moved up or down so that names do not overlap, with a leader line."""
    width, height = (float(pixels) / axes.figure.dpi * 72 for pixels in (axes.bbox.width, axes.bbox.height))
    order = sorted(ends, key=lambda name: ends[name].y)
    places = axes.transScale.transform([(end.x, end.y) for end in map(ends.__getitem__, order)])
    low, high = axes.transScale.transform(np.transpose([axes.get_xlim(), axes.get_ylim()]))
    across, heights = ((places - low) / (high - low)).T
    for name, x, end_height, label_height in zip(order, across, heights, spread(heights, gap=11 / height), strict=True):
        end = ends[name]
        axes.plot(
            (x, 1 + lead / width),
            (end_height, label_height),
            color=end.color,
            linestyle=end.dashes,
            linewidth=0.9,
            transform=axes.transAxes,
            clip_on=False,
        )
        text_at(axes, 1, label_height, name, size=8, offset=(lead + 3, 0), va="center_baseline", ha="left")


def spread(wanted: np.ndarray, *, gap: float) -> np.ndarray:
    """Return ascending places in [0, 1] at least `gap` apart, nearest (least squares) to ascending `wanted` ones.

    Without the gaps, places need only ascend, which is isotonic regression. If they do not fit in [0, 1], they keep
    their gaps and exceed 1.
    """
    from scipy.optimize import isotonic_regression  # half a second that heatmaps do not pay

    steps = gap * np.arange(len(wanted))
    return np.clip(isotonic_regression(wanted - steps).x, 0, max(1 - gap * (len(wanted) - 1), 0)) + steps


# ---- similarity by eps ------------------------------------------------------------------------------------------


def eps_curves(curves: Mapping[str, ByEps], *, label: str, norm: str = "") -> Figure:
    """Draw similarity by eps, one panel per curve on one scale: a line for each architecture, and the mean.

    Bars are 95 % intervals: of architectures, over images; of the mean, over images and networks, or over images alone
    for two architectures. Lines of architectures are moved aside by some points, so that their bars can be seen.
    """
    names = next(iter(curves.values())).architectures
    lead, side, high, bottom, top, left = 18, 250, max(230, 12 * (len(names) + 1)), 40, 30, 58
    right = lead + 12 + round(0.62 * 8 * max(map(len, (*names, "mean"))))
    width, height = left + len(curves) * (side + right + left) - left, bottom + high + top
    figure = blank(width, height)
    ends = []
    for column, (title, curve) in enumerate(curves.items()):
        corner = left + column * (side + right + left)
        axes = figure.add_axes((corner / width, bottom / height, side / width, high / height))
        axes.set_title(title, fontsize=10, color=INK, fontweight="bold")
        ends.append(_eps_panel(axes, curve))
        axes.set_xlabel(f"eps{f' ({norm})' if norm else ''} of both networks", fontsize=9, color=INK)
        if column == 0:
            axes.set_ylabel(label, fontsize=9, color=INK)
    low, high_end = zip(*(axes.get_ylim() for axes in figure.axes), strict=True)
    for axes, of_panel in zip(figure.axes, ends, strict=True):
        axes.set_ylim(min(0, *low), max(1, *high_end))
        if of_panel:
            _label_lines(axes, of_panel, lead=lead)
    return figure


def _eps_panel(axes: Axes, curve: ByEps) -> dict[str, End]:
    """Draw the lines of one panel; return their ends."""
    reach = curve.eps[-1] - curve.eps[0]
    axes.set(xlim=(curve.eps[0] - 0.06 * reach, curve.eps[-1] + 0.06 * reach), xticks=curve.eps)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.tick_params(labelsize=8, labelcolor=INK, color=INK, width=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=INK, linewidth=0.6)
    ends: dict[str, End] = {}
    lines = {name: [each.images for each in row] for name, row in curve.rows.items()}
    lines["mean"] = [each.total if np.isfinite(each.total.se) else each.images for each in curve.same]
    for index, (name, line) in enumerate(lines.items()):
        mean = name == "mean"
        color = INK if mean else LINES[index % len(LINES)]
        dashes = "-" if mean else DASHES[(index // len(LINES)) % len(DASHES)]
        moved = 0 if mean else 0.04 * reach * ((index + 0.5) / max(len(lines) - 1, 1) - 0.5)
        x, y = np.array(curve.eps) + moved, np.array([each.value for each in line])
        bars = [0 if np.isnan(each.se) else each.interval[1] - each.value for each in line]
        axes.errorbar(
            x, y, bars, color=color, linestyle=dashes, linewidth=2.2 if mean else 1.1, elinewidth=1.4 if mean else 0.7,
            capsize=3 if mean else 0, marker="o", markersize=4 if mean else 2.5, zorder=3 if mean else 2,
        )  # fmt: skip
        drawn = np.flatnonzero(np.isfinite(y))
        if len(drawn):
            ends[name] = End(float(x[drawn[-1]]), float(y[drawn[-1]]), color, dashes)
    return ends


# ---- clusters and maps ------------------------------------------------------------------------------------------


def dendrogram(names: tuple[str, ...], clusters: Clusters, title: str, *, width: float | None = None) -> Figure:
    """Draw clusters of networks, joined from left to right at their mean distance, with their support in percent.

    Support is over images / over networks left out. The cluster of all, which has it by definition, has none written.
    `width` is that of the figure in points.
    """
    label = 16 + round(0.62 * 8 * max(map(len, names)))  # points for the longest name
    left, right, bottom, top, line = label + 8, 24, 40, 30, 18
    figure, axes = plot(320, line * len(names), (left, right, bottom, top), width)
    axes.set_title(title, fontsize=10, color=INK, fontweight="bold")
    heights = [cluster.height for cluster in clusters.clusters]
    room = max(heights) - min(heights) or max(heights) or 1.0
    start = max(min(heights) - room / 4, 0)  # the part of every line that joins nothing takes little
    axes.set(xlim=(start, max(heights) + room / 12), ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)))
    axes.set_yticklabels([names[leaf] for leaf in clusters.order], parse_math=False)
    axes.set_xlabel("mean distance, 1 − unbiased CKA", fontsize=9, color=INK)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, linewidth=0.6)
    ends = {leaf: (start, float(clusters.order.index(leaf))) for leaf in range(len(names))}
    for number_of, cluster in enumerate(clusters.clusters, start=len(names)):
        (x, y), (other_x, other_y) = (ends[child] for child in cluster.children)
        axes.plot([x, cluster.height, cluster.height, other_x], [y, y, other_y, other_y], color=LINES[0], linewidth=1.3)
        ends[number_of] = (cluster.height, (y + other_y) / 2)
        if len(cluster.members) < len(names):
            text = f"{_share(cluster.images)}/{_share(cluster.networks)}"
            text_at(axes, *ends[number_of], text, size=7, offset=(-3, 0), va="center_baseline", ha="right", data=True)
    return figure


def _share(support: float) -> str:
    """Format support in percent, an en dash if undefined."""
    return number(100 * support, 0)


def network_map(names: tuple[str, ...], places: NetworkMap, title: str, *, width: float | None = None) -> Figure:
    """Draw networks as points whose distances are about those of their similarities, each in a circle of its spread.

    `width` is that of the figure in points.
    """
    label = 16 + round(0.62 * 8 * max(map(len, names)))
    figure, axes = plot(300, None, (24, label + 12, 40, 30), width)
    side = axes.get_position().height * figure.points[1]
    axes.set_title(title, fontsize=10, color=INK, fontweight="bold")
    half = 1.1 * float(np.abs(places.positions).max() + places.spread.max()) or 1.0
    axes.set(xlim=(-half, half), ylim=(-half, half), xticks=(), yticks=(), aspect="equal")
    axes.set_xlabel(f"shows {100 * places.shown:.0f} % of the distances", fontsize=9, color=INK)
    axes.spines[:].set(color=INK, linewidth=0.6)
    for spread_of, (x, y) in zip(places.spread, places.positions, strict=True):
        axes.add_patch(Circle((x, y), float(spread_of), facecolor=LINES[0], alpha=0.2, linewidth=0))
        axes.plot([x], [y], ".", color=LINES[0], markersize=5)
    order = np.argsort(places.positions[:, 1])
    heights = (places.positions[order, 1] + half) / (2 * half)
    for index, label_height in zip(order, spread(heights, gap=10 / side), strict=True):
        x = float(places.positions[index, 0] + half) / (2 * half)
        text_at(axes, x, label_height, names[index], size=8, offset=(6, 0), va="center_baseline", ha="left")
    return figure


# ---- gallery ----------------------------------------------------------------------------------------------------


def gallery_figure(gallery: Gallery, *, width: float | None = None) -> Figure | None:
    """Draw small images: row = pair, columns = seed, target, and the image inverted through each network.

    Return None if images have neither 1 nor 3 channels, which cannot be shown.
    """
    if gallery.seed.shape[1] not in SHOWN_CHANNELS:
        return None
    columns = {"seed": gallery.seed / 255, "target": gallery.target / 255} | gallery.inverted
    rows = [f"{seed}\nto {target}" for seed, target in zip(gallery.seed_labels, gallery.target_labels, strict=True)]
    pixels = np.concatenate([_column(images) for images in columns.values()], axis=1)
    high, wide, _ = pixels.shape
    lines = [line for row in rows for line in row.split("\n")]
    left, top = 16 + round(0.62 * 8 * max(map(len, lines))), 14 + round(0.62 * 8 * 0.6 * max(map(len, columns)))
    right = round(0.62 * 8 * 0.8 * len(list(columns)[-1]))
    scale = 1.0 if width is None else (width - left - right) / wide
    if width is not None and scale * TILE < SMALLEST_TILE:
        least = left + right + wide * SMALLEST_TILE / TILE
        raise TooNarrowError(width, least, f"a gallery of {len(columns):,} columns and these labels")
    total, height = left + scale * wide + right, top + scale * high
    figure = blank(total, height)
    axes = figure.add_axes((left / total, 0, scale * wide / total, scale * high / height))
    axes.imshow(pixels, interpolation="nearest", aspect="auto", extent=(0, len(columns), len(rows), 0))
    axes.set_axis_off()
    for column, name in enumerate(columns):
        tilted: dict[str, Any] = {"rotation": 30, "rotation_mode": "anchor", "clip_on": False, "parse_math": False}
        axes.text(column + 0.2, -0.1, name, size=8, color=INK, ha="left", va="baseline", **tilted)
    for row, label in enumerate(rows):
        text_at(axes, 0, row + 0.5, label, size=8, offset=(-5, 0), va="center", ha="right", data=True)
    return figure


def _column(images: np.ndarray) -> np.ndarray:
    """Stack images (k, C, H, W) in [0, 1] vertically, as RGB pixels in squares of TILE, GAP apart."""
    tiles = []
    for image in images:
        pixels = np.broadcast_to(np.round(255 * np.clip(np.nan_to_num(image), 0, 1)), (3, *image.shape[1:]))
        resampling = Image.Resampling.BOX if max(image.shape[1:]) > TILE else Image.Resampling.NEAREST
        tile = Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8)).resize((TILE, TILE), resampling)
        tiles.append(np.pad(np.asarray(tile), ((0, GAP), (0, GAP), (0, 0)), constant_values=255))
    return np.concatenate(tiles)
