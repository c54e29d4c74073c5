"""Read a folder of Hugging Face's `datasets`: what `save_to_disk` writes (Arrow), or Parquet files as on the Hub.

    FOLDER/dataset_dict.json, FOLDER/<split>/state.json, FOLDER/<split>/data-*.arrow     saved dict of splits
    FOLDER/state.json, FOLDER/data-*.arrow                                               saved set, for both splits
    FOLDER[/data]/<split>-*.parquet, FOLDER/<split>/*.parquet                            as downloaded from the Hub

Images are stored as {bytes, path}. The schema tells which column has images, which has labels, and the names of the
labels; the options `?image=COLUMN&label=COLUMN` after the folder select columns where there are several, and
`?test=SPLIT&train=SPLIT` select the splits.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from netsim.errors import DataError, SettingsError, first_line, nearest
from netsim.images.base import Split, numbered_classes, validate_labels
from netsim.images.decoding import DEFAULT_SIZE, Photograph, Unreadable
from netsim.images.formats import arrow
from netsim.images.listed import Contents, Extents, ListedImages, image_files, set_name
from netsim.images.names import SPLITS, choose_name, is_clutter, split_of
from netsim.storage.files import Files

# Options after the folder.
OPTIONS = ("image", "label", "train", "test")

# Reason why an image without a value in its column is unreadable.
NULL = "null: the dataset has no bytes for it"

# Errors of pyarrow for a damaged file.
_DAMAGED = (pa.ArrowException, OSError, KeyError, UnicodeDecodeError)

# Limit of a row group of Parquet in bytes: a row group is the least that can be read.
ROW_GROUP = 2**28


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read.

    Attributes
    ----------
    image, label : str
        Columns of images and labels.
    classes : tuple of str
        Names of the labels; empty where they have none.
    """

    image: str
    label: str
    classes: tuple[str, ...]


def load(path: str, *, split: Split, size: int | None) -> ListedImages:
    """List the images of a split.

    Parameters
    ----------
    path
        Folder of one dataset, optionally followed by options, as in ``cifar100?label=fine_label``.

    Raises
    ------
    SettingsError
        For an unknown option or column.
    DataError
        For a folder without a dataset or without the split, and for missing, damaged or ambiguous data.
    """
    folder, mark, query = path.partition("?")
    options = _options(query, path) if mark else {}
    files = image_files(folder)
    paths, list_files = _files_of(files, ((options[split],),) if split in options else SPLITS[split])
    if not paths:
        raise DataError(
            f"no dataset in {files.url!r}; it must contain what save_to_disk writes (dataset_dict.json or "
            "state.json), or <split>-*.parquet"
        )
    try:
        listed = list_files(files, paths, options)
    except FileNotFoundError as error:
        raise DataError(f"{files.url} lacks a file of its dataset ({error}); copy it again") from None
    classes = listed.columns.classes or numbered_classes(listed.labels, files.url)
    if not len(listed.labels):
        raise DataError(f"the dataset in {files.url!r} has no images for the split {split}")
    return ListedImages(
        name=set_name(files),
        location=files.url,
        names=listed.names,
        labels=validate_labels(listed.labels, len(classes), files.url),
        classes=classes,
        contents=listed.contents,
        decode=Photograph(size or DEFAULT_SIZE),
    )


@dataclass(frozen=True)
class _Listed:
    """Names, labels and contents of the images in Arrow or Parquet files."""

    columns: Columns
    names: tuple[str, ...]
    labels: np.ndarray
    contents: Contents


_ListFiles = Callable[[Files, Sequence[str], Mapping[str, str]], _Listed]


def _options(query: str, path: str) -> dict[str, str]:
    """Return the options after the folder. Raise SettingsError for unknown and malformed ones."""
    try:
        options = dict(parse_qsl(query, strict_parsing=True))
    except ValueError:
        options = {}
    if not options:
        raise SettingsError(f"options after ? must be NAME=VALUE, got hf:{path}; write ?image=COLUMN")
    for name in options:
        if name not in OPTIONS:
            raise SettingsError(f"no option {name!r} in hf:{path}{nearest(name, OPTIONS)}")
    return options


# Groups of names of a split, the preferred first.
_Names = Sequence[Sequence[str]]


def _files_of(files: Files, names: _Names) -> tuple[list[str], _ListFiles]:
    """Return the files of the preferred split in `names`, in order, and the function that lists images."""
    present = files.names()
    if "dataset_dict.json" in present:
        splits = _texts(_json(files, "dataset_dict.json"), "splits", files.place("dataset_dict.json"))
        return _arrow_files(files, f"{_select_split(splits, names, files)}/"), _list_arrow
    if "state.json" in present:
        return _arrow_files(files, ""), _list_arrow
    return _parquet_files(files, names), _list_parquet


def _arrow_files(files: Files, folder: str) -> list[str]:
    """Return the files that a saved set lists."""
    location = files.place(f"{folder}state.json")
    entries = _json(files, f"{folder}state.json").get("_data_files", [])
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise DataError(f"{location} is damaged (_data_files); copy the dataset again")
    names = _texts({"filename": [entry.get("filename") for entry in entries]}, "filename", location)
    return [f"{folder}{name}" for name in names]


def _texts(content: Mapping[str, Any], key: str, location: str) -> list[str]:
    """Return a list of texts in a JSON object, empty if it has none. Raise DataError for anything else."""
    texts = content.get(key, [])
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise DataError(f"{location} is damaged ({key}); copy the dataset again")
    return texts


def _parquet_files(files: Files, names: _Names) -> list[str]:
    """Return the Parquet files of the preferred split in `names`; empty if there are no Parquet files."""
    parquet = sorted(path for path in files.sizes(depth=3) if path.endswith(".parquet") and not is_clutter(path))
    if not parquet:
        return []
    selected = frozenset(name for group in names for name in group)
    by_split: dict[str, list[str]] = {}
    for path in parquet:
        by_split.setdefault(_split_of(path, selected), []).append(path)
    is_one_unnamed = len(by_split) == 1 and not any(_names_split(name, selected) for name in by_split)
    paths = parquet if is_one_unnamed else by_split[_select_split(list(by_split), names, files)]
    folders = sorted({path.rpartition("/")[0] for path in paths})
    if len(folders) > 1:
        raise DataError(f"{files.url!r} has several datasets, {' and '.join(folders)}; give the folder of one")
    _require_all(files, paths)
    return paths


def _split_of(path: str, selected: Set[str]) -> str:
    """Return the split in a path.

    Conventions: data/train-00000-of-00005.parquet; train/0000.parquet, as in the Hub's own conversion;
    cifar-train.parquet.
    """
    folder, _, name = path.rpartition("/")
    words, folders = re.split(r"[-._]", name), folder.split("/")[::-1]
    splits = [word for word in (*words, *folders) if _names_split(word, selected)]
    return splits[0] if splits else folders[0] if words[0].isdecimal() else words[0]


def _names_split(word: str, selected: Set[str]) -> bool:
    """Return True for a usual name of a split, and for one that an option selects."""
    return word in selected or split_of(word) is not None


def _require_all(files: Files, paths: Sequence[str]) -> None:
    """Raise DataError if there are fewer files than their names tell: train-00000-of-00005.parquet."""
    for path in paths:
        counted = re.search(r"-\d+-of-(\d+)", path)
        if counted and int(counted[1]) != len(paths):
            raise DataError(f"{files.url!r} has {len(paths)} of {int(counted[1])} files like {path}; add the others")


def _select_split(splits: Sequence[str], names: _Names, files: Files) -> str:
    """Return the preferred split. Raise DataError if there is none, or if several are equally preferred."""
    hint = "select one with ?test=SPLIT or ?train=SPLIT after the folder"
    chosen = choose_name(names, splits, f"splits in {files.url!r} must include one of them only", hint=hint)
    if chosen is None:
        usual = " or ".join(group[0] for group in names)
        raise DataError(f"splits in {files.url!r} must include {usual}, got {', '.join(splits)}; {hint}")
    return chosen


def _json(files: Files, path: str) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        content = json.loads(files.get(path))
        assert isinstance(content, dict)
        return content
    except FileNotFoundError:
        raise DataError(f"no file {files.place(path)!r}; copy the dataset again") from None
    except (ValueError, AssertionError) as error:
        raise DataError(f"{files.place(path)} is damaged ({error}); copy the dataset again") from None


# ---- columns


def _columns(schema: pa.Schema, options: Mapping[str, str], location: str) -> Columns:
    """Return the columns to read. Raise DataError if there are none, or several and no option selects one."""
    features = _features(schema)
    images = [name for name in schema.names if _is_image(schema.field(name).type)]
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    if not labels:
        labels = [name for name in schema.names if pa.types.is_integer(schema.field(name).type)]
    image = _select("image", images, options, schema, location)
    label = _select("label", labels, options, schema, location)
    if not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"labels must be whole numbers, got {schema.field(label).type} in column {label!r}, {location}")
    return Columns(image, label, tuple(features.get(label, {}).get("names") or ()))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return the features that `datasets` stores in the metadata of a schema, by column."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_image(kind: pa.DataType) -> bool:
    """Return True for a struct of bytes and path."""
    if not pa.types.is_struct(kind):
        return False
    children = {kind.field(k).name: kind.field(k).type for k in range(kind.num_fields)}
    return set(children) == {"bytes", "path"} and "binary" in str(children["bytes"])


def _select(what: str, candidates: list[str], options: Mapping[str, str], schema: pa.Schema, location: str) -> str:
    """Return the column that an option names, or else the only candidate."""
    if what in options:
        name = options[what]
        if name not in schema.names or (what == "image" and name not in candidates):
            known = candidates if what == "image" else schema.names
            raise SettingsError(f"no column of {what}s {name!r} in {location}{nearest(name, known)}")
        return name
    if len(candidates) == 1:
        return candidates[0]
    got = f"several ({', '.join(candidates)})" if candidates else f"none among {', '.join(schema.names)}"
    raise DataError(
        f"{location} must have one column of {what}s, got {got}; select one with ?{what}=COLUMN after the folder"
    )


# ---- Arrow


def _list_arrow(files: Files, paths: Sequence[str], options: Mapping[str, str]) -> _Listed:
    """List the images in Arrow files: labels, names, and where the bytes are."""
    columns: Columns | None = None
    names: list[str] = []
    parts: list[arrow.Images] = []
    for path in paths:
        try:
            copy = arrow.SparseCopy(files, path)
            columns = columns or _columns(copy.schema, options, files.place(path))
            parts.append(arrow.read_images(copy, columns.image, columns.label))
        except (arrow.NotArrowError, UnicodeDecodeError) as error:
            raise DataError(f"{files.place(path)} is not as `datasets` writes Arrow, or damaged ({error})") from None
        names += _names(parts[-1].names, path)
    assert columns is not None
    file = np.repeat(np.arange(len(parts)), [len(part.labels) for part in parts])
    labels, starts, sizes = (np.concatenate([getattr(p, key) for p in parts]) for key in ("labels", "starts", "sizes"))
    return _Listed(columns, tuple(names), labels, Extents(files, tuple(paths), file, starts, sizes, absent=NULL))


def _names(stored: Sequence[str | None], path: str) -> list[str]:
    """Return the stored names of images; file and row for those without one."""
    return [name or f"{path}[{row}]" for row, name in enumerate(stored)]


# ---- Parquet


def _list_parquet(files: Files, paths: Sequence[str], options: Mapping[str, str]) -> _Listed:
    """List the images in Parquet files: labels, names, row groups and rows."""
    columns: Columns | None = None
    names: list[str] = []
    labels: list[np.ndarray] = []
    rows: list[Rows] = []
    for number, path in enumerate(paths):
        try:
            with files.open(path, jumping=True) as file, pq.ParquetFile(file) as parquet:
                columns = columns or _columns(parquet.schema_arrow, options, files.place(path))
                table = parquet.read([columns.label, f"{columns.image}.path"])
                groups = [parquet.metadata.row_group(k) for k in range(parquet.metadata.num_row_groups)]
                stored = table.column(columns.image).combine_chunks().field("path").to_pylist()
        except FileNotFoundError:
            raise
        except _DAMAGED as error:
            raise DataError(
                f"{files.place(path)} is not a Parquet file with these columns, or damaged ({first_line(error)})"
            ) from None
        _require_rows(stored, sum(group.num_rows for group in groups), files.place(path))
        rows += [_rows_of(group, k, number, files.place(path)) for k, group in enumerate(groups)]
        labels.append(_labels_of(table.column(columns.label), columns.label, files.place(path)))
        names += _names(stored, path)
    assert columns is not None
    stamp = ",".join(str(files.size(path)) for path in paths).encode()
    contents = RowGroups(files, tuple(paths), columns.image, Rows.concatenate(rows), file_sizes=stamp)
    return _Listed(columns, tuple(names), np.concatenate(labels), contents)


@dataclass(frozen=True)
class Rows:
    """Locations of n images in Parquet files.

    Attributes
    ----------
    file, group, row : arrays (n,) of int64
        Index of the file, of the row group in the file, and of the row in the group.
    sizes : array (n,) of int64
        Bytes of each image: the mean of its row group.
    """

    file: np.ndarray
    group: np.ndarray
    row: np.ndarray
    sizes: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence["Rows"]) -> "Rows":
        """Return the rows of all parts, in order."""
        empty = np.zeros(0, np.int64)
        keys = ("file", "group", "row", "sizes")
        return cls(*(np.concatenate([empty, *(getattr(part, key) for part in parts)]) for key in keys))

    def keep(self, indices: np.ndarray) -> "Rows":
        """Return these rows only, in this order."""
        return Rows(self.file[indices], self.group[indices], self.row[indices], self.sizes[indices])


def _rows_of(group: Any, number: int, file: int, location: str) -> Rows:
    """Return the rows of a row group. Raise DataError if it is too large to be read for one image."""
    if group.total_byte_size > ROW_GROUP:
        raise DataError(
            f"row groups must be at most {ROW_GROUP >> 20} MiB, because reading one image reads its row group, got "
            f"{group.total_byte_size >> 20} MiB in {location}; write it again with row_group_size=100"
        )
    n = group.num_rows
    mean_size = group.total_byte_size // max(1, n)
    return Rows(np.full(n, file), np.full(n, number), np.arange(n), np.full(n, mean_size))


def _require_rows(column: Sequence[Any], rows: int, location: str) -> None:
    """Raise DataError if a column has another length than the metadata of its file tell."""
    if len(column) != rows:
        raise DataError(f"{location} must have {rows} rows, as its metadata tell, got {len(column)}; copy it again")


def _labels_of(column: pa.ChunkedArray, name: str, location: str) -> np.ndarray:
    """Return labels as int64. Raise DataError if any is missing."""
    if column.null_count:
        raise DataError(f"labels must not be missing, got {column.null_count} missing in column {name!r}, {location}")
    return column.to_numpy().astype(np.int64)


@dataclass(frozen=True)
class RowGroups:
    """Contents that are columns of Parquet files, read by row group; the last two row groups stay in memory.

    Attributes
    ----------
    files : Files
        The folder or URL of the files.
    paths : tuple of str
        Paths of the files.
    column : str
        Column of images.
    rows : Rows
        Location of each image.
    file_sizes : bytes
        Sizes of the files as text: those of images are known only when they are read.
    """

    files: Files
    paths: tuple[str, ...]
    column: str
    rows: Rows
    file_sizes: bytes
    _read: Any = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_read", lru_cache(maxsize=2)(self._read_group))

    @property
    def sizes(self) -> np.ndarray:
        """Approximate bytes of each image, (n,)."""
        return self.rows.sizes

    def get(self, indices: np.ndarray) -> list[bytes | Unreadable]:
        """Return the bytes of images, in order, or the reason why an image has none."""
        images: dict[int, bytes | Unreadable] = {}
        for index in np.unique(indices).tolist():  # in the order of row groups, so that each is read once
            column = self._read(int(self.rows.file[index]), int(self.rows.group[index]))
            data = column[int(self.rows.row[index])].as_py()
            images[index] = Unreadable(NULL) if data is None else data
        return [images[index] for index in indices.tolist()]

    def keep(self, indices: np.ndarray) -> "RowGroups":
        """Return the contents of these images only, in this order."""
        return replace(self, rows=self.rows.keep(indices))

    def stamp(self) -> bytes:
        """Return the sizes of the files as text."""
        return self.file_sizes

    def _read_group(self, file: int, group: int) -> pa.Array:
        """Return the encoded images of a row group."""
        path = self.paths[file]
        try:
            with self.files.open(path, jumping=True) as opened, pq.ParquetFile(opened) as parquet:
                rows = parquet.metadata.row_group(group).num_rows
                table = parquet.read_row_group(group, [f"{self.column}.bytes"])
            images = table.column(self.column).combine_chunks().field("bytes")
        except _DAMAGED as error:
            raise DataError(f"cannot read row group {group} of {self.files.place(path)}: {first_line(error)}") from None
        _require_rows(images, rows, self.files.place(path))
        return images
