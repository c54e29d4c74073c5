"""Options of a report: order, title, estimator, colour scale and width. They change no value."""

import math
import re
from dataclasses import dataclass

from netsim.errors import SettingsError
from netsim.results.order import check_order
from netsim.similarity.hsic import validate_estimator

POINTS = {"cm": 72 / 2.54, "mm": 72 / 25.4, "in": 72.0, "pt": 1.0}
"""Points in a unit of length. TeX's point is 0.4 % shorter."""

WIDEST = 200.0
"""Greatest width, in centimetres: a PNG of it has 24,000 pixels a row."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of a report.

    Parameters
    ----------
    order
        Order of networks: see `netsim.results.order.ordered`.
    title
        Title of the page and of PDF files; by default, it says how many networks were compared.
    estimator
        Estimator of the figures, and the one that the page shows first.
    limits
        Ends of the colour scale of heatmaps of similarity.
    width
        Width of figures, as "8.5cm", "85mm", "3.35in" or "241pt"; by default, each is as wide as its content asks.

    Raises
    ------
    SettingsError
        If one of them is not valid.

    Examples
    --------
    >>> round(ReportOptions(width="8.5cm").points)
    241
    >>> ReportOptions(limits=(0.5, 0.5))
    Traceback (most recent call last):
        ...
    netsim.errors.SettingsError: the colour scale must have LOW below HIGH, both finite, got 0.5 and 0.5
    """

    order: str = "given"
    title: str = ""
    estimator: str = "unbiased"
    limits: tuple[float, float] = (0.0, 1.0)
    width: str | None = None

    def __post_init__(self) -> None:
        check_order(self.order)
        object.__setattr__(self, "estimator", validate_estimator(self.estimator))
        low, high = self.limits
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise SettingsError(f"the colour scale must have LOW below HIGH, both finite, got {low:g} and {high:g}")
        if self.width is not None:
            to_points(self.width)

    @property
    def points(self) -> float | None:
        """Width of figures in points; None for that of their content."""
        return None if self.width is None else to_points(self.width)


def to_points(width: str) -> float:
    """Convert a length with a unit to points."""
    parts = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", width)
    length = float(parts[1]) * POINTS.get(parts[2], 0.0) if parts else 0.0
    if not 0 < length <= WIDEST * POINTS["cm"]:
        raise SettingsError(
            f"width must be a length up to {WIDEST:g} cm with one of the units {', '.join(POINTS)}, as in 8.5cm, "
            f"got {width!r}"
        )
    return length
