"""The Zarr documents of a run's arrays: created before there are values, compared with the settings, repaired."""

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from netsim.errors import StoreError
from netsim.store.arrays import CODECS, ArraySpec, fill_value
from netsim.store.run import Run


def create_arrays(run: Run, specs: Iterable[ArraySpec]) -> None:
    """Create the arrays that do not exist yet, with their groups and coordinates. Call it before work fans out.

    Raises
    ------
    StoreError
        If an array exists and is not as specified.
    """
    expected = _documents(run, specs)
    stored = run.files.get_all(expected)
    for path, fault in _differences(expected, stored).items():
        if path in stored:
            raise StoreError(f"{run.files.place(path)} is damaged ({fault}); {run.repair_hint}")
    run.files.put_all({path: data for path, data in expected.items() if path not in stored})


def array_faults(run: Run, specs: Iterable[ArraySpec]) -> dict[str, str]:
    """Map the path of each missing or damaged document or coordinate to what is wrong with it."""
    expected = _documents(run, specs)
    return _differences(expected, run.files.get_all(expected))


def repair_arrays(run: Run, specs: Iterable[ArraySpec]) -> None:
    """Write missing and damaged documents and coordinates again; values of arrays are not touched."""
    expected = _documents(run, specs)
    faults = _differences(expected, run.files.get_all(expected))
    run.files.put_all({path: expected[path] for path in faults})


def _documents(run: Run, specs: Iterable[ArraySpec]) -> dict[str, bytes]:
    """Render every file that exists before there are values: documents of groups and arrays, and coordinates."""
    rendered: dict[str, Any] = {}
    group = zarr.open_group(MemoryStore(rendered), mode="w", zarr_format=3)
    for spec in specs:
        _create(group, spec, shard_size=run.settings.pairs.shard_size)
    return {path: data.to_bytes() for path, data in rendered.items() if path != "zarr.json"}


def _create(group: zarr.Group, spec: ArraySpec, *, shard_size: int) -> None:
    group.create_array(
        spec.path,
        shape=spec.shape,
        chunks=(shard_size, *spec.shape[1:]) if spec.per_pair else spec.shape,
        dtype=spec.dtype,
        compressors=CODECS,
        fill_value=fill_value(np.dtype(spec.dtype)),
        dimension_names=spec.dims,
        attributes=dict(spec.attributes),
    )
    numbers: dict[str, Any] = {"pair": np.arange(spec.shape[0])} if spec.per_pair else {}
    folder = spec.path.rpartition("/")[0]
    for dim, labels in (numbers | dict(spec.coordinates)).items():
        path, values = f"{folder}/{dim}", np.asarray(labels)
        if path not in group:
            text = values.dtype.kind == "U"
            group.create_array(
                path,
                data=values.astype(np.dtypes.StringDType()) if text else values,
                chunks=values.shape,
                compressors=CODECS,
                dimension_names=(dim,),
            )


def _differences(expected: dict[str, bytes], stored: dict[str, bytes]) -> dict[str, str]:
    """Map each path at fault to the fault. Meanings are compared: another Zarr may spell a document otherwise."""
    faults = {path: "it is missing" for path in expected if path not in stored}
    for path in sorted(expected.keys() & stored.keys()):
        if expected[path] != stored[path]:
            node = re.sub(r"/(zarr\.json|c/.*)$", "", path)
            try:
                same = _meaning(node, path, expected) == _meaning(node, path, expected | {path: stored[path]})
                fault = "" if same else "it differs from what the settings say"
            except Exception as error:  # Zarr and its codecs have their own kinds
                fault = f"{type(error).__name__}: {error}"
            faults |= {path: fault} if fault else {}
    return faults


def _meaning(node: str, path: str, files: dict[str, bytes]) -> Any:
    """Parse a file of an array or group: its metadata or, if it is a chunk, the values of a coordinate.

    No values are read through a document that may be wrong: it could claim more than fits into memory.
    """
    from_bytes = default_buffer_prototype().buffer.from_bytes
    store = MemoryStore({key: from_bytes(data) for key, data in files.items() if key.startswith(f"{node}/")})
    opened = zarr.open(store, path=node, mode="r", zarr_format=3)
    if path != f"{node}/zarr.json":
        return np.asarray(opened[...]).tolist()  # type: ignore[index]
    return json.loads(files[path]) if isinstance(opened, zarr.Group) else opened.metadata.to_dict()
