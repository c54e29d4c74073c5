"""The results and images of a finished run as labelled arrays, for notebooks. M = networks, n = pairs."""

from dataclasses import dataclass
from os import PathLike

import numpy as np
import xarray as xr

from netsim.results.results import Results, load_results
from netsim.settings import SweepSettings
from netsim.storage.files import zarr_store
from netsim.store.layout import inverted
from netsim.store.run import Run


@dataclass(frozen=True)
class OpenRun:
    """A finished run as labelled arrays; see `open_run`.

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


def open_run(url: str | PathLike[str]) -> OpenRun:
    """Open a finished run as labelled arrays.

    Parameters
    ----------
    url
        Path or URL of the store, such as "runs/demo" or "s3://bucket/run".

    Returns
    -------
    OpenRun
        Datasets `similarity`, `losses` and `images`, and the `settings` and `results` of the run. Images stay in the
        store until they are used; everything else is read, and its checksums are verified.

    Raises
    ------
    StoreError
        If there is no run at `url`, or it is not finished or damaged.

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
    """
    run = Run.open(url)
    results = load_results(run)
    return OpenRun(
        url=run.url,
        settings=run.settings,
        results=results,
        similarity=stored_arrays(results),
        losses=_losses(results),
        images=_images(run),
    )


def stored_arrays(results: Results) -> xr.Dataset:
    """Return both matrices as the arrays that a store has under `results/`.

    They are cka, cka_se, cka_unbiased, cka_unbiased_se and floor, with dimensions (set, through, observer), whereas
    `Results.similarity` has a dimension for the estimator.
    """
    by_estimator = {
        f"{name}{suffix}": results.similarity[kind].sel(estimator=estimator, drop=True)
        for name, estimator in (("cka", "biased"), ("cka_unbiased", "unbiased"))
        for suffix, kind in (("", "cka"), ("_se", "se"))
    }
    arrays = xr.Dataset(by_estimator | {"floor": results.similarity.floor})
    return arrays.assign_attrs(pairs=results.n, shards=results.shards)


def _losses(results: Results) -> xr.Dataset:
    columns = ("initial", "final", "distance")
    stacked = {c: np.stack([getattr(results.loss[name], c) for name in results.networks]) for c in columns}
    return xr.Dataset(
        {c: (("through", "pair"), v) for c, v in stacked.items()}, coords={"through": list(results.networks)}
    )


def _images(run: Run) -> xr.Dataset:
    drawn = _group(run, "images")
    pairs = slice(run.settings.pairs.count)  # the store may have more
    through = [_group(run, inverted(network.name)).image for network in run.sweep.networks]
    both = drawn.assign(inverted=xr.concat(through, dim="through")).assign_coords(through=list(run.settings.names))
    return both.isel(pair=pairs).astype(np.float32)  # xarray decodes fixed point as float64


def _group(run: Run, group: str) -> xr.Dataset:
    return xr.open_zarr(zarr_store(run.url), group=group, consolidated=False, zarr_format=3)
