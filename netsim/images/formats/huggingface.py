"""A folder of Hugging Face's `datasets`: what `save_to_disk` wrote (Arrow), or Parquet files as on the Hub.

    FOLDER/dataset_dict.json, FOLDER/<split>/state.json, FOLDER/<split>/data-*.arrow     a dict of splits, saved
    FOLDER/state.json, FOLDER/data-*.arrow                                               one set: both splits
    FOLDER[/data]/<split>-*.parquet, FOLDER/<split>/*.parquet                            as downloaded from the Hub

Images lie in the files as {bytes, path}. The schema says which column is of images and which of labels, and what labels
are called; `?image=COLUMN&label=COLUMN` behind the folder chooses where there are several, and
`?test=SPLIT&train=SPLIT` which splits are used.
"""

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from netsim.errors import DataError, SettingsError, nearest
from netsim.images.base import Split, checked_labels, numbered
from netsim.images.decoding import DEFAULT_SIZE, Photograph
from netsim.images.formats import arrow
from netsim.images.listed import Contents, Extents, ListedImages, image_files, last_name
from netsim.storage.files import Files

SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
OPTIONS = ("image", "label", "train", "test")

ROW_GROUP = 2**28
"""Bytes of a row group of Parquet, up to which it is read: that is the least that can be."""


@dataclass(frozen=True)
class Columns:
    """Which columns are read; `classes` is empty where labels have no names."""

    image: str
    label: str
    classes: tuple[str, ...]


def load(place: str, *, split: Split, size: int | None) -> ListedImages:
    folder, _, query = place.partition("?")
    asked = _options(query, place)
    files = image_files(folder)
    paths, read = _files_of(files, (asked[split],) if split in asked else SPLITS[split])
    if not paths:
        raise DataError(
            f"{files.url!r} holds no dataset: what save_to_disk writes (dataset_dict.json or state.json), or "
            f"<split>-*.parquet, fits"
        )
    try:
        listed = read(files, paths, asked)
    except FileNotFoundError as error:
        raise DataError(f"{files.url} lacks a file of its dataset: {error}") from None
    classes = listed.columns.classes or numbered(listed.labels, files.url)
    if not len(listed.labels):
        raise DataError(f"the dataset in {files.url!r} has no images for the split {split}")
    return ListedImages(
        name=last_name(files),
        place=files.url,
        names=listed.names,
        labels=checked_labels(listed.labels, len(classes), files.url),
        classes=classes,
        contents=listed.contents,
        decode=Photograph(size or DEFAULT_SIZE),
    )


@dataclass(frozen=True)
class _Listed:
    columns: Columns
    names: tuple[str, ...]
    labels: np.ndarray
    contents: Contents


def _options(query: str, place: str) -> dict[str, str]:
    options = dict(parse_qsl(query))
    for name in options:
        if name not in OPTIONS:
            raise SettingsError(f"no option {name!r} in hf:{place}{nearest(name, OPTIONS)}")
    return options


def _files_of(files: Files, names: Sequence[str]) -> tuple[list[str], Any]:
    """The files of the first of the splits `names` that is there, in order, below `files`; and the function that lists
    what is in them.
    """
    here = files.names()
    if "dataset_dict.json" in here:
        there = _json(files, "dataset_dict.json").get("splits", [])
        folder = f"{_one_of(there, names, files)}/"
        return _arrow_files(files, folder), _list_arrow
    if "state.json" in here:
        return _arrow_files(files, ""), _list_arrow
    parquet = sorted(path for path in files.sizes(depth=3) if path.endswith(".parquet"))
    if not parquet:
        return [], _list_parquet
    known = {*names, *(name for usual in SPLITS.values() for name in usual)}
    by_split: dict[str, list[str]] = {}
    for path in parquet:
        by_split.setdefault(_split_of(path, known), []).append(path)
    # one set without a name of a split is all of them
    found = parquet if len(by_split) == 1 and not by_split.keys() & known else by_split[_one_of(by_split, names, files)]
    folders = sorted({path.rpartition("/")[0] for path in found})
    if len(folders) > 1:
        raise DataError(f"{files.url!r} has several sets, {' and '.join(folders)}; give the folder of one")
    _require_all(files, found)
    return found, _list_parquet


def _split_of(path: str, known: Set[str]) -> str:
    """data/train-00000-of-00005.parquet, train/0000.parquet as the Hub's own conversion has it, cifar-train.parquet."""
    folder, _, name = path.rpartition("/")
    own, around = re.split(r"[-._]", name), folder.split("/")[::-1]
    said = [word for word in (*own, *around) if word in known]
    return said[0] if said else around[0] if own[0].isdecimal() else own[0]


def _require_all(files: Files, paths: Sequence[str]) -> None:
    """Names say how many files there are: train-00000-of-00005.parquet."""
    for path in paths:
        counted = re.search(r"-\d+-of-(\d+)", path)
        if counted and int(counted[1]) != len(paths):
            raise DataError(f"{files.url!r} has {len(paths)} of {int(counted[1])} files like {path}")


def _one_of(there: Sequence[str] | Mapping[str, Any], names: Sequence[str], files: Files) -> str:
    for name in names:
        if name in there:
            return name
    raise DataError(
        f"{files.url!r} has the splits {', '.join(there)}, and none called {' or '.join(names)}; "
        "?test=SPLIT behind the folder chooses"
    )


def _arrow_files(files: Files, folder: str) -> list[str]:
    named = _json(files, f"{folder}state.json").get("_data_files", [])
    return [f"{folder}{entry['filename']}" for entry in named]


def _json(files: Files, path: str) -> dict[str, Any]:
    try:
        found = json.loads(files.get(path))
        assert isinstance(found, dict)
        return found
    except FileNotFoundError:
        raise DataError(f"no file {files.place(path)!r}") from None
    except (ValueError, AssertionError) as error:
        raise DataError(f"{files.place(path)} is damaged ({error})") from None


# ---- columns


def _columns(schema: pa.Schema, asked: Mapping[str, str], where: str) -> Columns:
    """Raises DataError where the schema has no such columns, or several and none is asked for."""
    features = _features(schema)
    images = [name for name in schema.names if _is_image(schema.field(name).type)]
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    if not labels:
        labels = [name for name in schema.names if pa.types.is_integer(schema.field(name).type)]
    image = _choose("image", images, asked, schema, where)
    label = _choose("label", labels, asked, schema, where)
    if not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"the column {label!r} in {where} is {schema.field(label).type}; labels are whole numbers")
    return Columns(image, label, tuple(features.get(label, {}).get("names") or ()))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What `datasets` says of columns, in the schema's metadata."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    children = {kind.field(k).name: kind.field(k).type for k in range(kind.num_fields)}
    return set(children) == {"bytes", "path"} and "binary" in str(children["bytes"])


def _choose(what: str, found: list[str], asked: Mapping[str, str], schema: pa.Schema, where: str) -> str:
    if what in asked:
        name = asked[what]
        if name not in schema.names or (what == "image" and name not in found):
            known = found if what == "image" else schema.names
            raise SettingsError(f"no column of {what}s {name!r} in {where}{nearest(name, known)}")
        return name
    if len(found) == 1:
        return found[0]
    which = f"several columns of {what}s ({', '.join(found)})" if found else f"no column of {what}s"
    raise DataError(f"{where} has {which} among {', '.join(schema.names)}; ?{what}=COLUMN behind the folder chooses")


# ---- Arrow


def _list_arrow(files: Files, paths: Sequence[str], asked: Mapping[str, str]) -> _Listed:
    columns: Columns | None = None
    names: list[str] = []
    labels, which, starts, sizes = ([np.zeros(0, np.int64)] for _ in range(4))
    for number, path in enumerate(paths):
        before = len(names)
        try:
            schema, batches = arrow.batches(files, path)
            columns = columns or _columns(schema, asked, files.place(path))
            image, label = (schema.field(name).type for name in (columns.image, columns.label))
            layout = arrow.Layout(schema)
            kinds = {name: image.field(name).type for name in ("bytes", "path")}
            for batch in batches:
                at = (files, path, batch, layout)
                labels.append(arrow.read_numbers(*at, label, columns.label).astype(np.int64))
                offsets, (data, _) = arrow.read_offsets(*at, kinds["bytes"], columns.image, "bytes")
                starts.append(data + offsets[:-1].astype(np.int64))
                sizes.append(np.diff(offsets).astype(np.int64))
                which.append(np.full(batch.rows, number))
                names += _names(arrow.read_text(*at, kinds["path"], columns.image, "path"), path, len(names) - before)
        except (arrow.NotArrowError, pa.ArrowInvalid, KeyError) as error:
            raise DataError(f"{files.place(path)} is not as `datasets` writes Arrow, or damaged: {error}") from None
    assert columns is not None
    at_all = [np.concatenate(parts) for parts in (labels, which, starts, sizes)]
    return _Listed(columns, tuple(names), at_all[0], Extents(files, tuple(paths), *at_all[1:]))


def _names(found: Sequence[str], path: str, before: int) -> list[str]:
    """What images were called; by their place where they came without a name."""
    return [name or f"{path}[{before + row}]" for row, name in enumerate(found)]


# ---- Parquet


def _list_parquet(files: Files, paths: Sequence[str], asked: Mapping[str, str]) -> _Listed:
    columns: Columns | None = None
    names: list[str] = []
    labels, which, groups, rows, sizes = ([np.zeros(0, np.int64)] for _ in range(5))
    for number, path in enumerate(paths):
        before = len(names)
        try:
            with files.open(path, jumping=True) as file, pq.ParquetFile(file) as parquet:
                columns = columns or _columns(parquet.schema_arrow, asked, files.place(path))
                table = parquet.read([columns.label, f"{columns.image}.path"])
                group_rows = [parquet.metadata.row_group(k) for k in range(parquet.metadata.num_row_groups)]
        except (pa.ArrowInvalid, KeyError) as error:
            raise DataError(f"{files.place(path)} is no Parquet file with these columns, or damaged: {error}") from None
        for k, group in enumerate(group_rows):
            if group.total_byte_size > ROW_GROUP:
                raise DataError(
                    f"a row group of {files.place(path)} has {group.total_byte_size >> 20} MiB, all of which is read "
                    f"to get at one image; at most {ROW_GROUP >> 20} fit: write it again with row_group_size=100"
                )
            groups.append(np.full(group.num_rows, k))
            rows.append(np.arange(group.num_rows))
            sizes.append(np.full(group.num_rows, group.total_byte_size // max(1, group.num_rows)))
            which.append(np.full(group.num_rows, number))
        column = table.column(columns.label)
        if column.null_count:
            raise DataError(f"{column.null_count} values of {columns.label} in {files.place(path)} are missing")
        labels.append(column.to_numpy().astype(np.int64))
        paths_of = table.column(columns.image).combine_chunks().field("path").to_pylist()
        names += _names([name or "" for name in paths_of], path, len(names) - before)
    assert columns is not None
    at = Rows(*(np.concatenate(parts) for parts in (which, groups, rows, sizes)))
    stamp = ",".join(str(files.size(path)) for path in paths).encode()
    contents = RowGroups(files, tuple(paths), columns.image, at, whole=stamp)
    return _Listed(columns, tuple(names), np.concatenate(labels), contents)


@dataclass(frozen=True)
class Rows:
    """Where n images are: file, row group in it, row in that; and bytes of each, about."""

    which: np.ndarray
    groups: np.ndarray
    rows: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class RowGroups:
    """Bytes of images in Parquet files, of which whole row groups are read; the last few are remembered."""

    files: Files
    paths: tuple[str, ...]
    column: str
    at: Rows
    whole: bytes  # the files' sizes: those of images are known only once they are read
    _read: Any = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_read", lru_cache(maxsize=2)(self._read_group))

    @property
    def sizes(self) -> np.ndarray:
        return self.at.sizes

    def get(self, indices: np.ndarray) -> list[bytes | None]:
        found: dict[int, bytes | None] = {}
        for index in np.unique(indices).tolist():  # in the order of row groups, so that each is read once
            column = self._read(int(self.at.which[index]), int(self.at.groups[index]))
            found[index] = column[int(self.at.rows[index])].as_py() or b""
        return [found[index] for index in indices.tolist()]

    def keep(self, indices: np.ndarray) -> "RowGroups":
        at = self.at
        return replace(self, at=Rows(at.which[indices], at.groups[indices], at.rows[indices], at.sizes[indices]))

    def stamp(self) -> bytes:
        return self.whole

    def _read_group(self, which: int, group: int) -> pa.Array:
        path = self.paths[which]
        try:
            with self.files.open(path, jumping=True) as file, pq.ParquetFile(file) as parquet:
                table = parquet.read_row_group(group, [f"{self.column}.bytes"])
        except (pa.ArrowInvalid, FileNotFoundError, OSError) as error:
            raise DataError(f"row group {group} of {self.files.place(path)} cannot be read: {error}") from None
        return table.column(self.column).combine_chunks().field("bytes")
