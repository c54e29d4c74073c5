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

from netsim import stages
from netsim.config import SweepSettings
from netsim.results import Results, load_results
from netsim.store import Run, zarr_store
from netsim.units import inverted


@dataclass(frozen=True)
class OpenRun:
    """What a run found. `similarity` has dimensions (set, through, observer), `losses` (through, pair)."""

    url: str
    settings: SweepSettings
    results: Results
    similarity: xr.Dataset  # cka, cka_se, cka_unbiased, cka_unbiased_se, floor; set is "natural" or "inverted"
    losses: xr.Dataset  # initial, final, distance
    images: (
        xr.Dataset
    )  # seed, target (pair, channel, y, x) uint8; inverted (through, pair, channel, y, x) float32; lazy


def open_run(url: str | PathLike[str]) -> OpenRun:
    """Open a finished run at a path or URL. Raises StoreError if there is none, or it is not finished or damaged."""
    run = Run.open(url)
    results = load_results(run)
    return OpenRun(
        url=run.url,
        settings=run.settings,
        results=results,
        similarity=_similarity(results),
        losses=_losses(results),
        images=_images(run),
    )


def _similarity(results: Results) -> xr.Dataset:
    kinds = ("cka", "cka_se", "cka_unbiased", "cka_unbiased_se", "floor")
    both = (results.natural, results.inverted)
    dims, names = ("set", "through", "observer"), list(results.networks)
    return xr.Dataset(
        {kind: (dims, np.stack([getattr(matrix, kind) for matrix in both])) for kind in kinds},
        coords={"set": ["natural", "inverted"], "through": names, "observer": names},
        attrs={"pairs": results.n, "shards": results.shards},
    )


def _losses(results: Results) -> xr.Dataset:
    columns = ("initial", "final", "distance")
    stacked = {c: np.stack([getattr(results.loss[name], c) for name in results.networks]) for c in columns}
    return xr.Dataset(
        {c: (("through", "pair"), v) for c, v in stacked.items()}, coords={"through": list(results.networks)}
    )


def _images(run: Run) -> xr.Dataset:
    drawn = _group(run, "images")
    through = [_group(run, inverted(name)).image for name in run.settings.names]
    images = xr.concat(through, dim="through") / np.float32(stages.IMAGE_STEPS)
    return drawn.assign(inverted=images).assign_coords(through=list(run.settings.names))


def _group(run: Run, group: str) -> xr.Dataset:
    return xr.open_zarr(zarr_store(run.url), group=group, consolidated=False, zarr_format=3)
