"""The results and images of a run as labelled arrays and tables, for `netsim.open_run`. M = networks, n = pairs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from netsim.results.measured import Measured
from netsim.results.results import Results
from netsim.storage.files import zarr_store
from netsim.store.layout import NATURAL, SEED, inverted
from netsim.store.metadata import DrawMetadata
from netsim.store.records import Record
from netsim.store.run import Run


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


def losses(results: Results) -> xr.Dataset:
    """Return `initial` and `final` relative losses and L2 `distance` from the seed, each (through, pair)."""
    columns = ("initial", "final", "distance")
    stacked = {c: np.stack([getattr(results.loss[name], c) for name in results.networks]) for c in columns}
    return xr.Dataset(
        {c: (("through", "pair"), v) for c, v in stacked.items()}, coords={"through": list(results.networks)}
    )


def images(run: Run) -> xr.Dataset:
    """Open `seed`, `target` and `inverted` images, float32 in [0, 1], which are read when they are used."""
    drawn = _group(run, "images")
    through = [_group(run, inverted(network.name)).image for network in run.sweep.networks]
    both = drawn.assign(inverted=xr.concat(through, dim="through")).assign_coords(through=list(run.settings.names))
    return _first_pairs(run, both).astype(np.float32)  # xarray decodes fixed point as float64


class Representations(Mapping[str, xr.Dataset]):
    """Representations of a set of images by every network: "natural", "seed", or "inverted/NETWORK".

    A set has one variable for each network that looked at it, float32 (pair, feature), read when it is used.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        through = {inverted(name): inverted(run.sweep.shown[name]) for name in run.settings.names}
        self._stored = {NATURAL: NATURAL, SEED: SEED} | through

    def __getitem__(self, set_name: str) -> xr.Dataset:
        stored = _group(self._run, f"representations/{self._stored[set_name]}")
        shown = self._run.sweep.shown.items()
        return _first_pairs(
            self._run,
            xr.Dataset({name: stored[other].rename({f"feature_{other}": f"feature_{name}"}) for name, other in shown}),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        return f"<representations of {', '.join(self)}>"


def class_names(run: Run) -> pd.DataFrame:
    """Return the class of the seed and of the target of every pair."""
    records = _draw_records(run)
    classes = np.array(DrawMetadata.of(records[0]).classes, dtype=object)
    return _by_pair({role: classes[run.read_all(records, f"pairs/{role}_label")] for role in (SEED, "target")})


def file_names(run: Run) -> pd.DataFrame:
    """Return the file that the seed and the target of every pair was read from; None where images are no files."""
    drawn = [DrawMetadata.of(record) for record in _draw_records(run)]
    size = run.settings.pairs.shard_size

    def joined(names: list[list[str] | None]) -> list[str | None]:
        return [name for shard in names for name in (shard if shard is not None else [None] * size)]

    return _by_pair({SEED: joined([d.seed_names for d in drawn]), "target": joined([d.target_names for d in drawn])})


def measures_table(results: Results, measured: Mapping[str, Measured]) -> pd.DataFrame:
    """Return the cells of every measure, one row for each measure, set, network inverted through, and observer."""
    columns = ["measure", "set", "through", "observer", "value", "se", "null"]
    cells = pd.MultiIndex.from_product([results.networks, results.everyone], names=["through", "observer"])
    tables = [
        pd.DataFrame({"value": matrix.value.ravel(), "se": matrix.se.ravel(), "null": matrix.null.ravel()}, index=cells)
        .reset_index()
        .assign(measure=name, set=set_name)
        for name, measure in measured.items()
        for set_name, matrix in ((NATURAL, measure.natural), ("inverted", measure.inverted))
        if matrix is not None
    ]
    return pd.concat(tables)[columns].reset_index(drop=True) if tables else pd.DataFrame(columns=columns)


def _draw_records(run: Run) -> list[Record]:
    return run.records("draw", "pairs", range(run.settings.pairs.shards))


def _by_pair(columns: Mapping[str, Sequence[object] | np.ndarray]) -> pd.DataFrame:
    table = pd.DataFrame(dict(columns))
    return table.rename_axis("pair")


def _first_pairs(run: Run, arrays: Any) -> Any:
    """Leave out the pairs that the store has beyond those of the sweep."""
    return arrays.isel(pair=slice(run.settings.pairs.count))


def _group(run: Run, group: str) -> xr.Dataset:
    return xr.open_zarr(zarr_store(run.url), group=group, consolidated=False, zarr_format=3)
