"""A finished run as Python objects, for notebooks: labelled arrays, tables, figures. M = networks, n = pairs."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
import xarray as xr

from netsim.errors import SettingsError
from netsim.results import labelled
from netsim.results.findings import headline, warnings
from netsim.results.labelled import Representations
from netsim.results.measured import Measured, load_measured
from netsim.results.order import ordered
from netsim.results.results import Results, load_results
from netsim.results.study import FLOOR, ROBUST_FLOOR, make_study
from netsim.settings import SweepSettings
from netsim.similarity.hsic import EstimatorName
from netsim.store.run import Run
from netsim.store.views import view

if TYPE_CHECKING:
    from netsim.report.canvas import Figure

T = TypeVar("T")

CLUSTERED = 3
"""Fewest networks that have clusters and a map."""


@dataclass(frozen=True, repr=False)
class OpenRun:
    """A finished run as labelled arrays, tables and figures; see `open_run`.

    Attributes
    ----------
    url
        Path or URL of the store.
    settings
        Settings that the run was computed with.
    results
        Means, intervals, tests and everything else that `netsim results` prints.
    similarity
        `cka` and `cka_unbiased` with their standard errors `cka_se` and `cka_unbiased_se`, and the `floor` of the
        biased estimator, with dimensions (set, through, observer) and lengths (2, M, M); set is "natural" or
        "inverted". Unbiased values may be below 0; undefined ones are NaN.
    losses
        `initial` and `final` relative loss ||rep - target|| / ||target|| (0 is perfect), and L2 `distance` from the
        seed with pixels in [0, 1], with dimensions (through, pair) and lengths (M, n).
    images
        `seed` and `target` (pair, channel, y, x), and `inverted` (through, pair, channel, y, x), float32 in [0, 1].
        Pixels are read from the store when they are used.
    """

    url: str
    settings: SweepSettings
    results: Results
    similarity: xr.Dataset
    losses: xr.Dataset
    images: xr.Dataset
    _run: Run = field(repr=False)

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means of both matrices and their difference, ceilings, and both normalized by them; unbiased.

        Indexed by `quantity` and `set`. `se`, `low` and `high` are over images (95 % interval), those that end in
        `_networks` over other networks, and those that end in `_total` over both.
        """
        from netsim.report.tables import means_table

        return means_table(self.results).set_index(["quantity", "set"])

    @cached_property
    def networks(self) -> pd.DataFrame:
        """Reference, width, accuracy and the course of the inversions of every network, by name."""
        from netsim.report.tables import networks_table

        return networks_table(self.results).set_index("network")

    @cached_property
    def measures(self) -> pd.DataFrame:
        """Cells of the measures that `netsim measure` has computed: value, standard error, and mean over permutations.

        A row for each measure, set, network inverted through, and observer. CKA is in `similarity`.
        """
        return labelled.measures_table(self.results, self._measured)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """Class of the seed and of the target of every pair."""
        return labelled.class_names(self._run)

    @cached_property
    def files(self) -> pd.DataFrame:
        """File that the seed and the target of every pair was read from; None where images are no files."""
        return labelled.file_names(self._run)

    @cached_property
    def representations(self) -> Representations:
        """Representations of a set by every network: ``run.representations["natural"]["vgg"]``, (n, features).

        Sets are "natural" (the targets), "seed", and "inverted/NETWORK". Values are read from the store when they are
        used.
        """
        return Representations(self._run)

    @property
    def plot(self) -> "Plots":
        """Figures of the report, which notebooks show: ``run.plot.heatmaps()``."""
        return Plots(self)

    @cached_property
    def _measured(self) -> Mapping[str, Measured]:
        return load_measured(self._run)

    def __repr__(self) -> str:
        return f"<netsim run {self.url}: {len(self.results.everyone)} networks. {headline(self.results)}>"

    def _repr_html_(self) -> str:
        lines = [f"<b>{html.escape(self.url)}</b>", html.escape(headline(self.results))]
        lines += [f"<b>Warning</b> {html.escape(warning)}" for warning in warnings(self.results)]
        return "".join(f"<p>{line}</p>" for line in lines) + self.plot.heatmaps()._repr_svg_()


class Plots:
    """The figures of a run, as `matplotlib` figures: a notebook shows them, ``figure.savefig("figure.pdf")`` saves.

    Parameters
    ----------
    run
        The run that they are of.
    """

    def __init__(self, run: OpenRun) -> None:
        self._run = run

    def __repr__(self) -> str:
        names = ", ".join(f"{name}()" for name in vars(Plots) if not name.startswith("_"))
        return f"<figures of {self._run.url}: {names}>"

    def heatmaps(
        self,
        estimator: EstimatorName = "unbiased",
        *,
        order: str = "given",
        limits: tuple[float, float] = (0.0, 1.0),
        width: str | None = None,
    ) -> "Figure":
        """Draw both matrices, as `netsim report` does.

        Parameters
        ----------
        estimator
            "unbiased" or "biased".
        order
            Order of networks: "given", "name", "clustered", or "mean" (highest row first).
        limits
            Ends of the colour scale.
        width
            Width of the figure, as "8.5cm", "3.35in" or "241pt"; by default, it grows with the number of networks.

        Raises
        ------
        SettingsError
            If one of them is not valid, or names do not fit in the width.
        """
        from netsim.report.drawings import estimators_of
        from netsim.report.heatmaps import heatmaps
        from netsim.report.options import ReportOptions

        options = ReportOptions(order=order, estimator=estimator, limits=limits, width=width)
        chosen, _ = estimators_of(options)
        return heatmaps(ordered(self._run.results, order), chosen, limits=limits, width=options.points)

    def losses(self) -> "Figure":
        """Draw the course of the relative loss of each network."""
        from netsim.report.figures import loss_curves

        return loss_curves(self._run.results)

    def gallery(self, rows: int = 8) -> "Figure":
        """Draw seeds, targets, and the images inverted through each network, of `rows` pairs at most.

        Raises
        ------
        SettingsError
            If images have neither one channel nor three.
        """
        from netsim.report.figures import gallery_figure
        from netsim.results.gallery import gallery

        figure = gallery_figure(gallery(self._run._run, rows=rows))
        if figure is None:
            channels = self._run.images.sizes["channel"]
            raise SettingsError(f"images must have 1 or 3 channels to be drawn, got {channels}")
        return figure

    def dendrogram(self, set: str = "inverted") -> "Figure":
        """Draw clusters of networks by their similarity on the "inverted" or "natural" set, with their support."""
        from netsim.report.figures import dendrogram

        names, clusters = self._clustered(set, self._run.results.inference.clusters)
        return dendrogram(names, clusters, _title(set))

    def map(self, set: str = "inverted") -> "Figure":
        """Draw networks as points, the nearer the more similar, on the "inverted" or "natural" set."""
        from netsim.report.figures import network_map

        names, places = self._clustered(set, self._run.results.inference.maps)
        return network_map(names, places, _title(set))

    def study(self, *, floor: float = FLOOR, robust_floor: float = ROBUST_FLOOR) -> "Figure":
        """Draw similarity as a function of adversarial robustness.

        Parameters
        ----------
        floor, robust_floor
            Test accuracy below which a standard (eps 0) and a robust network are left out.

        Raises
        ------
        SettingsError
            If the networks have no two levels of eps, or no two architectures.
        """
        from netsim.report.study import curves_figure

        study = make_study(self._run.results, self._run._measured, floor=floor, robust_floor=robust_floor)
        return curves_figure(study)

    def _clustered(self, set_name: str, by_set: Mapping[str, T]) -> T:
        if set_name not in ("natural", "inverted"):
            raise SettingsError(f"set must be 'natural' or 'inverted', got {set_name!r}")
        if set_name not in by_set:
            count = len(self._run.results.networks)
            raise SettingsError(f"clusters and maps require {CLUSTERED} networks of different weights, got {count}")
        return by_set[set_name]


def open_run(
    url: str | PathLike[str],
    *,
    sweep: str | None = None,
    networks: Sequence[str] | None = None,
    pairs: int | None = None,
) -> OpenRun:
    """Open a finished run as labelled arrays, tables and figures.

    Parameters
    ----------
    url
        Path or URL of the store, such as "runs/demo" or "s3://bucket/run".
    sweep
        Name or id of one of its sweeps; by default, the one run last.
    networks
        Names of the networks to show, in this order; by default, those of the sweep.
    pairs
        Number of pairs to use, the first ones; by default, those of the sweep.

    Returns
    -------
    OpenRun
        Datasets `similarity`, `losses`, `images` and `representations`, tables, figures, and the `settings` and
        `results` of the run. Images and representations stay in the store until they are used; everything else is
        read, and its checksums are verified.

    Raises
    ------
    StoreError
        If there is no run at `url`, or it is not finished or damaged.
    SettingsError
        If there is no such sweep or network, or there are not so many pairs.

    Examples
    --------
    After `make demo`:

    >>> import netsim
    >>> run = netsim.open_run("runs/demo")  # doctest: +SKIP
    >>> run.similarity.cka_unbiased.sel(set="inverted", through="vgg").dims  # doctest: +SKIP
    ('observer',)
    >>> float(run.similarity.cka.sel(set="natural", through="vgg", observer="vgg"))  # doctest: +SKIP
    1.0
    >>> run.losses.final.median("pair").dims  # doctest: +SKIP
    ('through',)
    >>> run.images.inverted.sel(through="vgg", pair=7).shape  # doctest: +SKIP
    (1, 28, 28)
    >>> run.networks.loc["vgg", "reference"]  # doctest: +SKIP
    'small:vgg'
    >>> run.representations["inverted/vgg"]["resnet18"].dims  # doctest: +SKIP
    ('pair', 'feature_resnet18')
    >>> run.plot.heatmaps().savefig("heatmaps.pdf")  # doctest: +SKIP
    """
    run = view(Run.open(url, sweep), networks, pairs)
    results = load_results(run)
    return OpenRun(
        url=run.url,
        settings=run.settings,
        results=results,
        similarity=labelled.stored_arrays(results),
        losses=labelled.losses(results),
        images=labelled.images(run),
        _run=run,
    )


def _title(set_name: str) -> str:
    return f"{set_name.capitalize()} images"
