"""A finished run as labelled arrays, for notebooks.

run = netsim.open_run("runs/demo")
run.similarity.cka_unbiased.sel(set="inverted", through="resnet18")
run.losses.final.median("pair")
run.images.inverted.sel(through="vgg", pair=7)      read from the store when used
"""

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
    """What a run found. `similarity` has dimensions (set, through, observer), `losses` (through, pair)."""

    url: str
    settings: SweepSettings
    results: Results
    similarity: xr.Dataset  # cka, cka_se, cka_unbiased, cka_unbiased_se, floor; set is "natural" or "inverted"
    losses: xr.Dataset  # initial, final, distance
    images: xr.Dataset  # seed, target (pair, channel, y, x), inverted (through, ...), float32 in [0, 1]; lazy


def open_run(url: str | PathLike[str]) -> OpenRun:
    """Open a finished run at a path or URL. Raises StoreError if there is none, or it is not finished or damaged."""
    run = Run.open(url)
    results = load_results(run)
    return OpenRun(
        url=run.url,
        settings=run.settings,
        results=results,
        similarity=published_arrays(results),
        losses=_losses(results),
        images=_images(run),
    )


def published_arrays(results: Results) -> xr.Dataset:
    """Return cka, cka_se, cka_unbiased, cka_unbiased_se and floor with dimensions (set, through, observer).

    These are the names of the arrays under `results/` in a store; `Results.similarity` has an estimator dimension.
    """
    by_estimator = {
        f"{name}{suffix}": results.similarity[variable].sel(estimator=estimator, drop=True)
        for name, estimator in (("cka", "biased"), ("cka_unbiased", "unbiased"))
        for suffix, variable in (("", "cka"), ("_se", "se"))
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
    through = [_group(run, inverted(name)).image for name in run.settings.names]
    both = drawn.assign(inverted=xr.concat(through, dim="through")).assign_coords(through=list(run.settings.names))
    return both.astype(np.float32)  # xarray decodes fixed point as float64


def _group(run: Run, group: str) -> xr.Dataset:
    return xr.open_zarr(zarr_store(run.url), group=group, consolidated=False, zarr_format=3)
