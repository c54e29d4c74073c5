"""Trees of folders, tar files and NumPy archives of any layout: each is grouped in the obvious way, or refused."""

import io
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from netsim.errors import DataError, NetsimError
from netsim.images import ListedImages, load_images
from support.fuzz import inputs, mostly, new_folder, outcome
from support.image_formats import FORMATS, Made, add, open_made, png

TRAIN, TEST, VALIDATION = ("train", "training"), ("test", "testing", "tests"), ("val", "validation", "valid", "dev")
SPLITS = {"train": (TRAIN,), "test": (TEST, VALIDATION, ("eval", "evaluation"))}
RESEMBLING = ("seg_train", "TestImages", "val2017")
CLUTTER = ("__MACOSX", ".git", "._a.png", "Thumbs.db", "desktop.ini", "@eaDir", ".DS_Store")
CLASSES = (
    *("ant", "Ant", "bee", "0", "1", "10", "2", "a b", "a:b", "x::y", "[bold]", "é", "e\u0301", "\udcff", "\\xff"),
    *("new\nline", "\x1b[2J", "{0..9}", "~", "100%", "a#b", "a?b", "*", "-", "con", "trains"),
)
NAMES = (
    "a.png",
    "b.PNG",
    "B.png",
    "A.gif",
    "0.jpg",
    "10.jpg",
    "2.jpg",
    "é.webp",
    "\udcfe.png",
    "new\nline.gif",
    "x::y.bmp",
    "[b].tif",
)
OTHERS = ("a.txt", "README", "b.csv", "x.\x1b[2J", "a.png.part")
PIXELS = [png(np.full((2, 2, 3), level, np.uint8)) for level in range(256)]


def spelt(name: str) -> str:
    """Return a name with escapes for bytes that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def refused_or_listed(reference: str, split: str, *names: str) -> ListedImages | None:
    """Open images; return None if they are refused by one of `names`."""
    images = outcome(lambda: load_images(reference, split, size=2), *names)
    assert isinstance(images, DataError | ListedImages), images
    return images if isinstance(images, ListedImages) else None


# ---- folders

_splits = st.sampled_from(
    [name for groups in SPLITS.values() for group in groups for name in group] + ["Test", "TRAIN"]
)
_classes = st.sampled_from(CLASSES)
_below = st.one_of(_classes, _splits, st.sampled_from(CLUTTER))
_images = st.tuples(st.sampled_from(["a.png", "B.png", "b.jpg", "10.png", "2.png"]), st.sampled_from(["file"]))
_files = st.tuples(st.sampled_from([*NAMES, *OTHERS, *CLUTTER]), st.sampled_from(["file"] * 6 + ["link", "nowhere"]))
_odd = st.sampled_from([("loop.png", "loop"), ("up", "up"), ("pipe.png", "pipe"), ("empty.png", "empty")])
_leaves = mostly(_images, st.one_of(_files, _odd), times=5)
_tops = mostly(_classes, st.one_of(_splits, st.sampled_from(RESEMBLING + CLUTTER)), times=7)


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[tuple[str, ...], str]]:
    """Draw paths with the kinds of what is there."""
    splits = draw(
        mostly(st.sampled_from([[""], ["train", "test"], ["Training", "val"]]), st.lists(_splits, max_size=3))
    )
    paths = []
    for split in splits:
        for top in draw(st.lists(_tops, max_size=3)):
            for name, kind in draw(st.lists(_leaves, min_size=1, max_size=4)):
                below = draw(mostly(st.just(()), st.tuples(_below)))
                paths.append((tuple(part for part in (split, top, *below, name) if part), kind))
    return [*paths, *(((name,), kind) for name, kind in draw(mostly(st.just([]), st.lists(_files, max_size=1))))]


def plant(root: Path, tree: list[tuple[tuple[str, ...], str]]) -> None:
    """Write a tree; what would replace something is left out."""
    for level, (parts, kind) in enumerate(tree):
        path = root.joinpath(*parts)
        with suppress(FileExistsError, NotADirectoryError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                (root.parent / "elsewhere").mkdir(exist_ok=True)
                target = root.parent / "elsewhere" / f"{level}.png"
                target.write_bytes(PIXELS[level])
                path.symlink_to(target)
            elif kind in ("nowhere", "loop", "up"):
                path.symlink_to({"nowhere": "missing", "loop": path.name, "up": ".."}[kind])
            elif kind == "pipe":
                os.mkfifo(path)
            elif not path.exists():
                path.write_bytes(PIXELS[level] if kind == "file" else b"")


def is_clutter(name: str) -> bool:
    return name.startswith(".") or name in CLUTTER


def is_image(name: str) -> bool:
    return name.lower().endswith((".png", ".jpg", ".gif", ".webp", ".bmp", ".tif")) and not is_clutter(name)


def walk(folder: Path, parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all files below a folder that a person made; links are followed, but not back."""
    if os.path.realpath(folder) in parents:
        return
    for name in os.listdir(folder):
        if is_clutter(name):
            continue
        if (folder / name).is_dir():
            for path in walk(folder / name, (*parents, os.path.realpath(folder))):
                yield (name, *path)
        else:
            yield (name,)


def split_names(folders: list[str], split: str) -> list[list[str]]:
    """Return the folders that stand for a split, by preference."""
    groups = [[name for name in folders if name.casefold() in group] for group in SPLITS[split]]
    return [group for group in groups if group]


def guessed(root: Path, split: str) -> str | None:
    """Return why a tree would have to be guessed, or has no images; None for one that has a meaning."""
    folders = [name for name in os.listdir(root) if not is_clutter(name) and (root / name).is_dir()]
    train, test = split_names(folders, "train"), split_names(folders, "test")
    beside = [name for name in folders if not any(name in group for group in (*train, *test))]
    chosen = train if split == "train" else test
    if train or test:
        if not (train and test) and any(is_image(path[-1]) for name in beside for path in walk(root / name)):
            return "classes beside a split"
        if not chosen:
            return "no such split"
        if len(chosen[0]) > 1:
            return "two of a split"
    elif folders and all(name in RESEMBLING for name in folders):
        return "names like splits"
    below = root / chosen[0][0] if chosen else root
    files = [path for path in walk(below) if len(path) > 1]
    images = {path[0] for path in files if is_image(path[-1])}
    if not images or images != {path[0] for path in files}:
        return "no images"
    for folder in images if not chosen else ():
        inside = {
            _split_of(path[1]) if len(path) > 2 else None for path in files if path[0] == folder if is_image(path[-1])
        }
        if None not in inside or len(inside) > 2:
            return "splits below classes"
    return None


def _split_of(name: str) -> str | None:
    return next((split for split, groups in SPLITS.items() if any(name.casefold() in group for group in groups)), None)


def obvious(root: Path, split: str) -> tuple[list[str], list[str]]:
    """Return the paths of images below their split in the order of ImageFolder, and the classes."""
    folders = [name for name in os.listdir(root) if not is_clutter(name) and (root / name).is_dir()]
    names = [name for s in SPLITS for group in split_names(folders, s) for name in group]
    below = root / split_names(folders, split)[0][0] if names else root
    parents = [root / name for name in names] or [root]
    classes = sorted({c.name for parent in parents for c in parent.iterdir() if c.is_dir() and not is_clutter(c.name)})
    paths = sorted(
        (path[0], "/".join(path[:-1]), path[-1]) for path in walk(below) if len(path) > 1 if is_image(path[-1])
    )
    return [f"{folder}/{name}" for _, folder, name in paths], classes


@inputs(
    150,
    tree=trees(),
    root=st.sampled_from(["photos", "a:b", "x::y", "[b]", "é", "100%", "{0..9}", "a b", "c*"]),
    split=st.sampled_from(["train", "test"]),
)
def test_a_tree_is_grouped_by_its_folders_or_refused(
    tree: list[tuple[tuple[str, ...], str]], root: str, split: str
) -> None:
    with new_folder() as parent:
        folder = parent / root
        folder.mkdir()
        plant(folder, tree)
        images = refused_or_listed(f"folder:{folder}", split, str(folder))
        assert (images is None) == (guessed(folder, split) is not None), guessed(folder, split)
        if images is None:
            return
        names, classes = obvious(folder, split)
        assert images.names == tuple(map(spelt, names)) and images.classes == tuple(map(spelt, classes))
        assert images.labels.tolist() == [classes.index(name.partition("/")[0]) for name in names]
        assert all(line.isprintable() for line in images.notes)
        below = Path(images.location)
        readable = [(below / name).is_file() and (below / name).stat().st_size > 0 for name in names]
        assert sorted(images.inspect().unreadable) == [k for k, good in enumerate(readable) if not good]
        for k, name in enumerate(names):
            pixels = outcome(lambda k=k: images.read([k]), spelt(name))
            assert isinstance(pixels, np.ndarray) == readable[k]
            assert not readable[k] or PIXELS[pixels[0, 0, 0, 0]] == (below / name).read_bytes()


# ---- tar files

KEYS = ("000", "001", "a/000", "é", "\udcff", "new\nline", "a b", "x::y", "._000", "__MACOSX/000", "", ".hidden/1")
EXTENSIONS = ("png", "PNG", "jpg", "cls", "CLS", "seg.png", "json", "tar", "\x1b[2J", "")
LABELS = (b"0", b"1", b" 12\n", b"0003", b"-1", b"x", b"", b"1e3", b"\xd9\xa3", b"999999999", b"1" * 40, b"\x1b[2J")
Members = list[tuple[str, str, bytes]]


@st.composite
def shards(draw: st.DrawFn) -> Members:
    """Draw members: key, extension and content; most of them are whole samples."""
    members: Members = []
    for level, key in enumerate(draw(st.lists(st.sampled_from([*KEYS, "a", "b", "c", "d"]), max_size=4, unique=True))):
        label = draw(st.sampled_from([*LABELS[:4] * 12, *LABELS]))
        members += [(key, draw(st.sampled_from(["png", "JPG", "webp"])), PIXELS[level]), (key, "cls", label)]
        extra = draw(st.sampled_from([None] * 40 + [*EXTENSIONS]))
        members += [] if extra is None else [(key, extra, b"?")]
    return members[draw(st.sampled_from([0] * 6 + [1])) :]


def write_tar(path: Path, members: Members, kind: int) -> None:
    with tarfile.open(path, "w", format=kind) as tar:
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for key, extension, content in members:
            add(tar, f"{key}.{extension}" if extension else key, content)


def obvious_samples(members: Members) -> list[tuple[str, int, bytes]] | None:
    """Group members by all before the first dot of their names; return (image, label, content), or None."""
    samples: dict[str, dict[str, tuple[str, bytes]]] = {}
    for key, extension, content in members:
        name = f"{key}.{extension}" if extension else key
        parts = name.split("/")
        if any(part.startswith(".") or part == "__MACOSX" for part in parts if part):
            continue
        stem, _, rest = parts[-1].partition(".")
        sample = samples.setdefault("/".join([*parts[:-1], stem]), {})
        if rest.lower() in sample:
            return None
        sample[rest.lower()] = name, content
    listed = []
    for sample in samples.values():
        images = [sample[rest] for rest in sample if rest in ("png", "jpg", "webp")]
        label = sample.get("cls", ("", b""))[1].strip()
        if len(images) != 1 or not (label.isdigit() and len(label) <= 9 and int(label) < 100_000):
            return None
        listed.append((images[0][0], int(label), images[0][1]))
    return listed or None


@inputs(
    100,
    members=shards(),
    kind=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    name=st.sampled_from(["a.tar", "x::y.tar", "é.tar", "[b].tar", "a b.tar"]),
    # behind a sample, the end of which may look like that of the file, or anywhere
    cut=st.one_of(st.none(), st.sampled_from([512 + 2048 * samples for samples in range(4)]), st.integers(0, 10_000)),
)
def test_a_shard_is_grouped_by_its_names_or_refused(members: Members, kind: int, name: str, cut: int | None) -> None:
    with new_folder() as folder:
        write_tar(folder / name, members, kind)
        if cut is not None and cut < (folder / name).stat().st_size:
            os.truncate(folder / name, cut)
        images = refused_or_listed(f"tar:{folder / name}", "test", str(folder / name), name)
        expected = obvious_samples(members)
        if images is None:
            assert expected is None or cut is not None
            return
        assert expected is not None
        assert images.names == tuple(spelt(f"{name}/{image}") for image, _, _ in expected)
        assert images.labels.tolist() == [label for _, label, _ in expected]
        assert len(images.classes) == max(images.labels) + 1
        for k, (image, _, content) in enumerate(expected):
            pixels = outcome(lambda k=k: images.read([k]), spelt(image))
            assert isinstance(pixels, np.ndarray) == (content != b"?")
            assert content == b"?" or PIXELS[pixels[0, 0, 0, 0]] == content


# ---- NumPy archives

SHAPES = ((3, 2, 2), (3, 2, 2, 3), (3, 3, 2, 2), (3, 1, 2, 2), (3, 5, 4, 1))
ODD_SHAPES = ((3, 0, 2), (0, 2, 2), (3,), (), (3, 3, 9, 3), (3, 2, 2, 2), (2, 1, 2, 2, 3))
ODD_PIXELS = ("i1", "f4", "u2", "?", "O", "S3", "U2", "c8", "M8[s]", "V3")
LABEL_TYPES, ODD_LABELS = ("i8", "u1", ">i4", "u8"), ("f4", "?", "O", "U2", "c8")
CLASS_NAMES = (["a", "b", "c"], [b"a", b"b", b"c"], [7, 8, 9], ["a"], 3, [["a"], ["b"], ["c"]])


@st.composite
def archives(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Draw arrays by name; most of them are images and labels."""

    def often(usual: Sequence[Any], odd: Sequence[Any]) -> Any:
        return draw(mostly(st.sampled_from(usual), st.sampled_from(odd), times=12))

    rng = np.random.default_rng(draw(st.sampled_from(range(50))))
    names = often(["images labels", "x_test y_test", "test_images test_labels"], ["val_images labels", "a b"]).split()
    pixels = rng.integers(256, size=often(SHAPES, ODD_SHAPES), dtype=np.uint8).astype(often(["u1"], ODD_PIXELS))
    length = often([len(pixels) if pixels.ndim else 1], [0, 2, 4])
    largest = often([2], [-1, 0, 199_999, 2**63])
    labels = np.array([min(k, 1) * largest for k in range(length)], dtype=object)
    with suppress(OverflowError):
        labels = labels.astype(often(LABEL_TYPES, ODD_LABELS))
    labels = often([labels, labels[:, None]], [labels[None], labels.reshape(-1, 1, 1)])
    order = often([np.ascontiguousarray], [np.asfortranarray])
    arrays = {names[0]: order(pixels) if pixels.ndim else pixels, names[1]: labels}
    classes = often([None, *CLASS_NAMES[:3]], CLASS_NAMES)
    return arrays if classes is None else arrays | {"classes": np.array(classes)}


def obvious_arrays(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, list[int]] | None:
    """Return images (n, C, H, W) and their labels as numpy has them, or None where they are not both."""
    pair = next(
        (p for p in (("images", "labels"), ("x_test", "y_test"), ("test_images", "test_labels")) if p[0] in arrays),
        None,
    )
    if pair is None or pair[1] not in arrays:
        return None
    pixels, labels = arrays[pair[0]], arrays[pair[1]]
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    classes = arrays.get("classes")
    if pixels.dtype != np.uint8 or not pixels.flags.c_contiguous or pixels.ndim not in (3, 4) or 0 in pixels.shape[1:]:
        return None
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(pixels) or (labels < 0).any():
        return None
    known = 100_000 if classes is None else len(classes) if classes.ndim == 1 else 0
    if (len(labels) and int(labels.max()) >= known) or (classes is not None and not known):
        return None
    if pixels.ndim == 3:
        return pixels[:, None], labels.tolist()
    last, first = pixels.shape[3] in (1, 3), pixels.shape[1] in (1, 3)
    if last == first:
        return None
    return pixels.transpose(0, 3, 1, 2) if last else pixels, labels.tolist()


@inputs(120, arrays=archives(), compressed=st.booleans(), name=st.sampled_from(["a.npz", "x::y.npz", "é.npz", "a b"]))
def test_an_archive_is_what_numpy_reads_or_refused(arrays: dict[str, np.ndarray], compressed: bool, name: str) -> None:
    with new_folder() as folder:
        with open(folder / name, "wb") as file:
            (np.savez_compressed if compressed else np.savez)(file, allow_pickle=True, **arrays)
        images = outcome(lambda: load_images(f"npz:{folder / name}"), str(folder / name))
        expected = obvious_arrays(arrays)
        assert isinstance(images, DataError) == (expected is None)
        if expected is not None:
            assert images.labels.tolist() == expected[1]
            np.testing.assert_array_equal(images.read(range(len(images))), expected[0])


@inputs(
    100,
    flips=st.lists(
        st.tuples(st.sampled_from(range(1000)), st.sampled_from([1 << bit for bit in range(8)])), max_size=2
    ),
    cut=st.sampled_from([1000] * 4 + list(range(1000))),
    compressed=st.booleans(),
)
def test_a_damaged_archive_is_refused_or_whole(flips: list[tuple[int, int]], cut: int, compressed: bool) -> None:
    pixels, labels = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4), np.arange(3)
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, images=pixels, labels=labels)
    data = bytearray(buffer.getvalue())
    for place, mask in flips:
        data[place * (len(data) - 1) // 999] ^= mask
    with new_folder() as folder:
        (folder / "a.npz").write_bytes(data[: len(data) * cut // 1000])
        images = outcome(lambda: load_images(f"npz:{folder / 'a.npz'}"), "a.npz", may_warn=zipfile.__file__)
        assert isinstance(images, DataError | ListedImages)
        if isinstance(images, ListedImages):
            np.testing.assert_array_equal(images.read(range(3))[:, 0], pixels)
            assert images.labels.tolist() == labels.tolist()


# ---- any format


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Made, Path]]:
    """Image sets of every format, by name."""
    folder = tmp_path_factory.mktemp("sets")
    return {name: (write(folder / name, np.random.default_rng(0)), folder / name) for name, write in FORMATS.items()}


@inputs(
    150,
    name=st.sampled_from(sorted(FORMATS)),
    file=st.sampled_from(range(20)),
    place=st.one_of(st.sampled_from(range(1000)), st.sampled_from(range(950, 1000)), st.sampled_from(range(50))),
    mask=st.sampled_from([1 << bit for bit in range(8)] + [255, None]),
)
def test_a_damaged_set_is_refused_or_has_all_of_its_images(
    sets: dict[str, tuple[Made, Path]], name: str, file: int, place: int, mask: int | None
) -> None:
    """Which pixels it has nobody knows: most formats have no checksums."""
    made, root = sets[name]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[file % len(files)]
    whole = path.read_bytes()
    data = bytearray(whole)
    position = place * (len(data) - 1) // 999
    if mask is None:
        del data[position:]
    else:
        data[position] ^= mask
    path.write_bytes(data)
    try:
        images = outcome(lambda: open_made(made, str(root)), str(root))
        if not isinstance(images, NetsimError):
            assert len(images) == len(made.labels) and images.labels.max() < len(images.classes)
            outcome(lambda: images.read(range(len(images))), str(root), may_warn="/PIL/")
    finally:
        path.write_bytes(whole)
