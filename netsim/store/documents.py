"""The Zarr documents of a run's arrays: created before there are values, compared with the settings, repaired."""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from netsim.errors import StoreError
from netsim.storage.concurrency import concurrently
from netsim.store.arrays import CODECS, ArraySpec, fill_value
from netsim.store.run import Run

SHORTER = "it has too few pairs"
"""Fault of a document that a sweep of more pairs makes longer."""


def create_arrays(run: Run, specs: Iterable[ArraySpec]) -> None:
    """Create the arrays that do not exist yet, with their groups and coordinates. Call it before work fans out.

    Per-pair arrays that have fewer pairs than specified grow: only their document changes. Those that have more stay.
    All of one group have as many as the longest, because xarray opens no group whose arrays differ in a dimension.

    Raises
    ------
    StoreError
        If an array exists and is not as specified.
    """
    specs = list(specs)
    expected = _documents(run, specs)
    stored = run.files.get_all(expected)
    differences = _differences(expected, stored)
    for path, fault in differences.items():
        if path in stored and fault != SHORTER:
            raise StoreError(f"{run.files.place(path)} is damaged ({fault}); {run.repair_hint}")
    _write(run, specs, differences)


def array_faults(run: Run, specs: Iterable[ArraySpec]) -> dict[str, str]:
    """Map the path of each missing or damaged document or coordinate to what is wrong with it."""
    expected = _documents(run, specs)
    return _differences(expected, run.files.get_all(expected))


def repair_arrays(run: Run, specs: Iterable[ArraySpec]) -> None:
    """Write missing and damaged documents and coordinates again; values of arrays are not touched."""
    specs = list(specs)
    _write(run, specs, array_faults(run, specs))


def _write(run: Run, specs: Sequence[ArraySpec], paths: Collection[str]) -> None:
    """Write some documents and coordinates, and make the per-pair arrays of their groups as long as the longest.

    Arrays of other units that become too short are written first: an interruption then leaves a difference.
    """
    written = {spec.path for spec in specs if spec.per_pair and f"{spec.path}/zarr.json" in paths}
    groups = {_group(path) for path in written}
    documents = _per_pair_documents(run, [group for group in groups if f"{group}/zarr.json" not in paths])
    others = {path: document for path, document in documents.items() if path not in written}
    longest: dict[str, int] = {}
    for path, pairs in [
        *((path, document["shape"][0]) for path, document in others.items()),
        *((spec.path, spec.shape[0]) for spec in specs if spec.per_pair),
    ]:
        longest[_group(path)] = max(pairs, longest.get(_group(path), 0))
    longer = {path: _with_pairs(document, longest[_group(path)]) for path, document in others.items()}
    grown = {f"{path}/zarr.json": document for path, document in longer.items() if document != others[path]}
    run.files.put_all({path: json.dumps(document, indent=2).encode() for path, document in grown.items()})
    expected = _documents(run, [spec.with_pairs(longest.get(_group(spec.path), 0)) for spec in specs])
    run.files.put_all({path: expected[path] for path in paths})


def _group(path: str) -> str:
    """Return the group of an array."""
    return path.rpartition("/")[0]


def _per_pair_documents(run: Run, groups: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the documents of the per-pair arrays in some groups, by path of the array."""
    groups = [group for group in groups if group]
    names = concurrently(run.files.names, groups)
    arrays = [f"{group}/{name}" for group, below in zip(groups, names, strict=True) for name in below]
    stored = run.files.get_all(f"{path}/zarr.json" for path in arrays if not path.endswith("/zarr.json"))
    parsed = {path.removesuffix("/zarr.json"): _parse(data) for path, data in stored.items()}
    return {path: document for path, document in parsed.items() if _per_pair(document) and document.get("shape")}


def _parse(data: bytes) -> Any:
    """Parse JSON; None if it is damaged, which `array_faults` tells."""
    try:
        return json.loads(data)
    except ValueError:
        return None


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
    folder = spec.path.rpartition("/")[0]
    for dim, labels in spec.coordinates.items():
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
            node = re.sub(r"/(zarr\.json|c/\d+)$", "", path)
            try:
                fault = _fault(_meaning(node, path, expected), _meaning(node, path, expected | {path: stored[path]}))
            except Exception as error:  # Zarr and its codecs have their own kinds
                fault = f"{type(error).__name__}: {error}"
            faults |= {path: fault} if fault else {}
    return faults


def _fault(expected: Any, stored: Any) -> str:
    """Describe how two documents differ; "" if they mean the same, or more pairs than expected are stored."""
    if _per_pair(expected) and _per_pair(stored) and _with_pairs(expected, 0) == _with_pairs(stored, 0):
        return SHORTER if stored["shape"][0] < expected["shape"][0] else ""
    return "" if expected == stored else "it differs from what the settings say"


def _per_pair(document: Any) -> bool:
    """Return True for the metadata of a per-pair array."""
    return isinstance(document, dict) and (document.get("dimension_names") or [""])[0] == "pair"


def _with_pairs(document: dict[str, Any], pairs: int) -> dict[str, Any]:
    """Return the metadata of a per-pair array with another number of pairs."""
    return document | {"shape": [pairs, *document["shape"][1:]]}


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
