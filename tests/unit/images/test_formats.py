"""What every image set keeps to, on a disk and in object storage; then what is special about each format."""

import gzip
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from torchvision.transforms import v2

from netsim.errors import DataError, SettingsError
from netsim.images import ListedImages, listed, load_images
from netsim.images.decoding import THREADS, Photograph, Unreadable
from netsim.images.formats import huggingface, npz
from netsim.images.formats.tar import braces
from netsim.references import IMAGE_SOURCES, parse_image_source
from netsim.settings import ImageSettings
from netsim.storage.files import Files
from support import image_formats as made_by
from support.image_formats import FORMATS, Made, add, dataset, png
from support.seaweed import BUCKET

SIZE = 16


@pytest.fixture(scope="session")
def local(tmp_path_factory) -> dict[str, tuple[Made, str]]:
    """Format -> what it should give, and where it is."""
    root = tmp_path_factory.mktemp("formats")
    return {
        name: (make(root / name, np.random.default_rng([3, place])), str(root / name))
        for place, (name, make) in enumerate(FORMATS.items())
    }


@pytest.fixture(scope="session")
def remote(local, object_storage) -> dict[str, tuple[Made, str]]:
    filesystem = object_storage.filesystem()
    for name, (_, root) in local.items():
        filesystem.put(f"{root}/", f"{BUCKET}/formats/{name}/", recursive=True)
    return {name: (made, f"s3://{BUCKET}/formats/{name}") for name, (made, _) in local.items()}


def opened(made: Made, root: str, **options):
    return load_images(made.reference.replace("ROOT", root), **options)


def twin(pixels: np.ndarray, size: int) -> np.ndarray:
    """torchvision's, of an image (H, W) or (H, W, 3)."""
    transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    return transform(Image.fromarray(pixels)).numpy()


# ---- the contract


@pytest.mark.parametrize("place", ["local", "remote"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_what_was_written_on_a_disk_and_in_object_storage(name, place, request):
    made, root = request.getfixturevalue(place)[name]
    images = opened(made, root, size=SIZE)
    assert (len(images), images.classes, images.labels.tolist()) == (12, made.classes, made.labels)
    assert images.labels.dtype == np.int64
    expected = np.stack([twin(pixels, SIZE) for pixels in made.pixels])
    assert images.shape == expected.shape[1:]
    found = images.read(range(12))
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert np.array_equal(images.read([7, 3, 7, 11]), expected[[7, 3, 7, 11]])
    assert images.read([]).shape == (0, *images.shape)


@pytest.mark.parametrize("name", FORMATS)
def test_the_hash_does_not_depend_on_where_images_lie_but_on_how_they_are_prepared(name, local, remote):
    hashes = [opened(*which[name], size=size).content_hash() for which in (local, remote) for size in (SIZE, SIZE + 1)]
    assert hashes[:2] == hashes[2:] and hashes[0] != hashes[1]


@pytest.mark.parametrize("name", FORMATS)
def test_the_hash_changes_with_an_image(name, local, tmp_path):
    """Made again with other random numbers, in which labels may be other ones too."""
    other = FORMATS[name](tmp_path / "other", np.random.default_rng(99))
    assert opened(other, str(tmp_path / "other")).content_hash() != opened(*local[name]).content_hash()


@pytest.mark.parametrize("name", ["cifar10", "npz"])
def test_images_that_have_one_size_keep_it_unless_another_is_asked_for(name, local):
    made, root = local[name]
    images = opened(made, root)
    assert images.shape[1:] == made.pixels[0].shape[:2]
    assert np.array_equal(images.read(range(12)), np.stack(made.pixels).transpose(0, 3, 1, 2))


PHOTOGRAPHS = [name for name in FORMATS if parse_image_source(name.partition("_")[0] + ":x")[0].photographs]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_of_a_list_without_some_images_the_others_stay_as_they_are(name, local):
    images = opened(*local[name], size=SIZE)
    some = images.without([0, 5, 11])
    kept = [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert some.labels.tolist() == images.labels[kept].tolist() and some.classes == images.classes
    assert np.array_equal(some.read([0, 8, 4]), images.read([1, 10, 6]))
    assert some.content_hash() not in (images.content_hash(), images.without([0, 5, 10]).content_hash())
    assert images.without([]).content_hash() == images.content_hash()


@pytest.mark.parametrize("name", ["tar", "imagenet", "hf_arrow"])
def test_of_a_large_file_in_object_storage_only_the_images_asked_for_are_fetched(name, remote, monkeypatch):
    images = opened(*remote[name])
    fetched = []
    plain = Files.get_ranges
    monkeypatch.setattr(Files, "get_ranges", lambda self, ranges: fetched.extend(ranges) or plain(self, ranges))
    images.read([4, 9])
    assert [stop - start for _, start, stop in fetched] == images.contents.sizes[[4, 9]].tolist()


def test_a_large_npz_is_read_by_range_and_gives_the_same(local, remote, monkeypatch):
    expected = opened(*local["npz"])
    monkeypatch.setattr(npz, "IN_MEMORY", 0)
    for images in (opened(*local["npz"]), opened(*remote["npz"])):
        assert isinstance(images.contents, npz.Stored)
        assert np.array_equal(images.read(range(12)), expected.read(range(12)))
        assert images.content_hash() == expected.content_hash()


# ---- decoding


def test_images_come_in_order_whatever_the_number_of_threads(local, monkeypatch):
    images = opened(*local["folder"], size=SIZE)
    order = np.tile(np.arange(12), 30)  # several groups
    found = []
    for threads in ("1", "7"):
        monkeypatch.setenv(THREADS, threads)
        found.append(images.read(order))
    assert np.array_equal(*found) and np.array_equal(found[0][:12], found[0][-12:])


@pytest.mark.parametrize("threads", ["0", "many", ""])
def test_a_number_of_threads_that_is_none_is_refused(local, monkeypatch, threads):
    monkeypatch.setenv(THREADS, threads)
    message = f"NETSIM_DECODING_THREADS must be a whole number from 1 on, got {threads!r}; correct or unset it"
    with pytest.raises(SettingsError, match=message):
        opened(*local["folder"]).read([0])


def test_what_is_fetched_at_a_time_is_bounded_in_images_and_in_bytes():
    sizes = np.array([1, 1, 2**25, 2**24, 2**24, 2**26, *[1] * 100])
    groups = listed.split_into_groups(np.arange(len(sizes)), sizes)
    assert np.concatenate(groups).tolist() == list(range(len(sizes)))
    assert [len(group) for group in groups] == [2, 1, 2, 1, 64, 36]
    assert listed.split_into_groups(np.array([], dtype=int), sizes) == []


def saved(image: Image.Image, kind: str, **options) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = Image.fromarray(np.arange(0, 256, dtype=np.uint8).reshape(16, 16))
COLOURS = Image.fromarray(np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8))
TURNED = Image.Exif()
TURNED[0x0112] = 6  # orientation: turn by 90 degrees
SEE_THROUGH = COLOURS.copy()
SEE_THROUGH.putalpha(GREY)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(GREY, "PNG"), GREY.convert("RGB")),
        (saved(GREY, "PNG", bits=8), GREY.convert("RGB")),
        (saved(Image.fromarray(np.asarray(GREY, dtype=np.uint16) * 257), "PNG"), GREY.convert("RGB")),  # 16 bits
        (saved(GREY.convert("1"), "PNG"), GREY.convert("1").convert("RGB")),
        (saved(COLOURS.quantize(8), "PNG"), COLOURS.quantize(8).convert("RGB")),
        (saved(COLOURS.quantize(8), "PNG", transparency=3), COLOURS.quantize(8).convert("RGB")),
        (saved(SEE_THROUGH, "PNG"), COLOURS),  # as in torchvision: what is behind is not known
        (saved(COLOURS, "WEBP", lossless=True), COLOURS),
        (saved(COLOURS, "PNG", exif=TURNED), COLOURS),  # as in torchvision: networks were trained so
    ],
    ids=["grey", "grey8", "grey16", "bits", "palette", "transparent palette", "alpha", "webp", "exif"],
)
def test_images_of_every_mode_become_rgb(data, expected):
    assert np.array_equal(Photograph(16)(data), np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_every_mode_become_what_torchvision_makes_of_them(mode, tmp_path):
    (tmp_path / "x.jpg").write_bytes(saved(COLOURS.resize((40, 30)).convert(mode), "JPEG"))
    transform = v2.Compose([v2.Resize(16), v2.CenterCrop(16), v2.PILToTensor()])
    expected = transform(torchvision.datasets.folder.pil_loader(tmp_path / "x.jpg"))
    assert np.array_equal(Photograph(16)((tmp_path / "x.jpg").read_bytes()), expected.numpy())


JPEG = saved(COLOURS.resize((200, 200)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "missing"),
        (b"", "empty"),
        (b"no image", "not a JPEG, PNG or WebP file"),
        (saved(COLOURS, "TIFF"), "not a JPEG, PNG or WebP file"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (png(np.asarray(COLOURS))[:400], ""),
        (JPEG[:2] + b"\0" * 1000, "not a JPEG, PNG or WebP file"),
    ],
)
def test_an_unreadable_file_gives_a_reason_instead_of_pixels(data, reason):
    found = Photograph(16)(data)
    assert isinstance(found, Unreadable) and reason in found.reason and " at 0x" not in found.reason


def test_unreadable_images_are_named_and_counted(tmp_path):
    made_by.make_folder(tmp_path, np.random.default_rng(0))
    broken = [tmp_path / "test" / name / f"{k}.png" for name in ("ant", "cat") for k in range(3)]
    for path in broken:
        path.write_bytes(b"broken")
    images = load_images(f"folder:{tmp_path}", size=SIZE)
    assert set(images.unreadable()) == {0, 1, 2, 8, 9, 10}
    named = ", ".join(rf"'ant/{k}.png' \(.*\)" for k in range(3))
    expected = rf"cannot read 6 of 12 images of .*test: {named} and 3 more"
    with pytest.raises(DataError, match=expected):
        images.read(range(12))
    images.read([3, 4])


# ---- what is special about folders


def test_a_class_has_the_same_label_in_every_split(tmp_path):
    for path in ("train/ant", "train/bee", "test/bee"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "x.png").write_bytes(png(np.asarray(COLOURS)))
    for split, labels in {"train": [0, 1], "test": [1]}.items():
        images = load_images(f"folder:{tmp_path}", split)
        assert images.classes == ("ant", "bee") and images.labels.tolist() == labels


def test_a_tree_is_listed_as_torchvision_lists_it_and_what_is_not_there_is_counted(tmp_path):
    """Folders in class folders, one that leads back to itself, hidden ones, and a link to what is not there."""
    for path in ("ant/2.png", "ant/1.d/x.png", "ant/1.d/e/0.png", "ant/1/z.png", "bee/x.PNG", "bee/words.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(png(np.asarray(COLOURS)))
    theirs = torchvision.datasets.ImageFolder(str(tmp_path)).samples
    (tmp_path / "ant/.thumbnails").mkdir()
    (tmp_path / "ant/.thumbnails/2.png").write_bytes(b"")
    (tmp_path / "ant/again").symlink_to(tmp_path / "ant")
    images = load_images(f"folder:{tmp_path}", size=SIZE)
    assert [(str(tmp_path / name), label) for name, label in zip(images.names, images.labels, strict=True)] == theirs
    assert images.unreadable() == {}
    (tmp_path / "bee/y.png").symlink_to("/nowhere/y.png")
    images = load_images(f"folder:{tmp_path}", size=SIZE)
    assert images.names[-1] == "bee/y.png" and images.unreadable() == {5: "empty"}


# ---- ImageNet


def test_the_validation_archive_is_read_as_torchvision_reads_it(tmp_path, monkeypatch):
    """torchvision extracts the same archives; labels, images and the list are then the same, and so is the hash."""
    root = tmp_path / "imagenet"
    made = made_by.make_imagenet(root, np.random.default_rng(5))
    images = opened(made, str(root), size=SIZE)
    from torchvision.datasets import imagenet

    md5 = {path.name: torchvision.datasets.utils.calculate_md5(path) for path in root.iterdir()}
    for key, (archive, _) in imagenet.ARCHIVE_META.items():
        monkeypatch.setitem(imagenet.ARCHIVE_META, key, (archive, md5.get(archive)))
    pixels = images.read(range(12))
    theirs = torchvision.datasets.ImageNet(str(root), split="val")
    assert [label for _, label in theirs.samples] == images.labels.tolist()
    assert [Path(path).name for path, _ in theirs.samples] == [name.partition("/")[2] for name in images.names]
    (root / "ILSVRC2012_img_val.tar").unlink()
    extracted = opened(made, str(root), size=SIZE)
    assert extracted.names == images.names and extracted.classes == images.classes
    assert extracted.content_hash() == images.content_hash()
    assert np.array_equal(extracted.read(range(12)), pixels)


def test_the_training_archive_is_read_without_unpacking_its_archives(tmp_path):
    rng = np.random.default_rng(0)
    pictures = made_by.photographs(rng, 6)
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        for label, wnid in enumerate(("n00000002", "n00000001")):
            with tarfile.open(tmp_path / "inner.tar", "w") as inner:
                for k in range(3):
                    add(inner, f"{wnid}_{k}.JPEG", png(pictures[3 * label + k]))
            add(outer, f"{wnid}.tar", (tmp_path / "inner.tar").read_bytes())
    images = load_images(f"imagenet:{tmp_path}", "train", size=SIZE)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1] and images.classes == ("n00000001", "n00000002")
    expected = [twin(pictures[k], SIZE) for k in (3, 4, 5, 0, 1, 2)]
    assert np.array_equal(images.read(range(6)), np.stack(expected))


def without(name):
    return lambda root: (root / name).unlink()


def damaged_devkit(root):
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(b"no tar"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            without("ILSVRC2012_devkit_t12.tar.gz"),
            "ILSVRC2012_img_val.tar requires ILSVRC2012_devkit_t12.tar.gz, which has its labels",
        ),
        (without("ILSVRC2012_img_val.tar"), "must contain ILSVRC2012_img_val.tar or val/<wnid>/"),
        (damaged_devkit, "is not ImageNet's devkit, or damaged"),
        (
            lambda root: made_by.write_devkit(root / "ILSVRC2012_devkit_t12.tar.gz", np.ones(11, dtype=int)),
            "must have the 11 images that the devkit labels, got 12",
        ),
    ],
)
def test_an_imagenet_that_lacks_something_is_refused(tmp_path, harm, message):
    root = tmp_path / "imagenet"
    made = made_by.make_imagenet(root, np.random.default_rng(5))
    harm(root)
    with pytest.raises(DataError, match=message):
        opened(made, str(root))


# ---- tar files


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{x,y}-{0..1}.tar", ["x-0.tar", "x-1.tar", "y-0.tar", "y-1.tar"]),
        ("{x-{0..1},{y,z}-{8..9}}.tar", ["x-0.tar", "x-1.tar", "y-8.tar", "y-9.tar", "z-8.tar", "z-9.tar"]),
        ("a-{08..012..2}.tar", ["a-008.tar", "a-010.tar", "a-012.tar"]),
        (r"a\{0,1}.tar", [r"a\0.tar", r"a\1.tar"]),
    ],
)
def test_braces_mean_what_they_mean_in_a_shell(pattern, paths):
    """Except that a backslash is a character of a path."""
    assert braces(pattern) == paths


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a-{0..}.tar", "braces must be {000..099} or {a,b}, got 'a-{0..}.tar'"),
        ("a-{9..0}.tar", "ranges must count up, got 9..0 in 'a-{9..0}.tar'"),
        ("a-{0..3.tar", "braces must be balanced, got 'a-{0..3.tar'"),
        ("a-{5}.tar", "braces must be {000..099} or {a,b}, got 'a-{5}.tar'"),
        ("a}{.tar", "braces must be {000..099} or {a,b}, got 'a}{.tar'"),
        ("{a,{0..3}.tar", "braces must be balanced, got '{a,{0..3}.tar'"),
        ("{a,{a,b}}.tar", "paths must be unique, got a.tar twice from '{a,{a,b}}.tar'"),
    ],
)
def test_a_pattern_that_cannot_be_expanded_or_repeats_a_path_is_refused(pattern, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        braces(pattern)


def test_shards_in_folders_are_splits(tmp_path):
    for split, label in (("train", b"1"), ("val", b"0")):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "0.tar", "w") as tar:
            add(tar, "a.cls", label)
            add(tar, "a.png", png(np.asarray(COLOURS)))
    assert load_images(f"tar:{tmp_path}", "train").labels.tolist() == [1]
    assert load_images(f"tar:{tmp_path}", "test").labels.tolist() == [0]


def one_shard(path: Path, **members: bytes) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            add(tar, f"0.{name}", data)


def holed(path: Path) -> None:
    """As a download leaves it that was begun with its full size: a hole, behind which members may be whole."""
    one_shard(path, cls=b"1", png=b"x" * 600, txt=b"x" * 200_000)
    data = bytearray(path.read_bytes())
    data[2560:100_000] = bytes(100_000 - 2560)
    path.write_bytes(data)


def same_twice(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            add(tar, "0.cls", b"1")
            add(tar, "0.png", png(np.asarray(COLOURS)))


def cut(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[:at])


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: one_shard(path, png=b"x"), r"sample '/0' in .* must have one image .* and .cls, got .png"),
        (lambda path: one_shard(path, cls=b"3"), r"must have one image .* and .cls, got .cls"),
        (
            lambda path: one_shard(path, cls=b"dog", png=b"x"),
            r"0\.cls must hold a class as a whole number from 0 on, got b'dog'",
        ),
        (same_twice, r"names in a shard must be unique, got 0\.cls twice"),
        (holed, "damaged at byte 2560"),
        (lambda path: cut(path, 1024), "damaged at byte 1024"),  # between two members
        (lambda path: cut(path, 2000), "damaged"),
        (lambda path: flipped(path, 1024 + 100), "damaged at byte 1024"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "is damaged, compressed, or not a tar file"),
        (lambda path: path.unlink(), "no tar file"),
        (lambda path: path.write_bytes(b""), "is damaged, compressed, or not a tar file"),
    ],
)
def test_a_tar_file_that_is_harmed_is_never_taken_for_a_shorter_one(tmp_path, harm, message):
    path = tmp_path / "a.tar"
    one_shard(path, cls=b"1", png=b"x" * 600, txt=b"text")
    harm(path)
    with pytest.raises(DataError, match=message):
        load_images(f"tar:{path}")


# ---- CIFAR


@pytest.mark.parametrize(("kind", "pickled"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_the_pickled_version_of_cifar_is_refused_with_the_way_out(tmp_path, kind, pickled):
    (tmp_path / pickled).mkdir()
    (tmp_path / pickled / "x").write_bytes(b"cos\nsystem\n")
    with pytest.raises(DataError, match="whose pickles can run any code; download the binary version"):
        load_images(f"{kind}:{tmp_path}")


def test_training_images_of_cifar_are_those_of_five_files(tmp_path):
    made_by.make_cifar10(tmp_path, np.random.default_rng(0))
    for k in range(1, 6):
        pixels = np.full((2, 32, 32, 3), k, dtype=np.uint8)
        made_by.write_records(tmp_path / "cifar-10-batches-bin" / f"data_batch_{k}.bin", pixels, np.array([[0], [1]]))
    images = load_images(f"cifar10:{tmp_path}", "train")
    assert images.read(range(10))[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: cut(folder / "test_batch.bin", 5000), "must be a multiple of 3073 bytes, got 5000"),
        (lambda folder: cut(folder / "batches.meta.txt", 8), "labels must be indices into the 1 classes"),
        (
            lambda folder: (folder / "test_batch.bin").unlink(),
            "lacks test_batch.bin; it must contain the binary version",
        ),
    ],
)
def test_a_cifar_that_is_not_whole_is_refused(tmp_path, harm, message):
    made_by.make_cifar10(tmp_path, np.random.default_rng(0))
    harm(tmp_path / "cifar-10-batches-bin")
    with pytest.raises(DataError, match=message):
        load_images(f"cifar10:{tmp_path}")


# ---- NumPy archives

BYTES = np.zeros((4, 5, 6, 3), dtype=np.uint8)
ONES = np.ones(4, dtype=int)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": BYTES, "labels": np.array([0, None, 1, 2], dtype=object)}, "cannot read labels in .*: Object"),
        ({"images": BYTES.astype(object), "labels": ONES}, "must be uint8, got object"),
        ({"images": BYTES / 255, "labels": ONES}, "must be uint8, got float64"),
        (
            {"images": BYTES, "labels": ONES[:3]},
            "images and labels must have the same length, got 4 images and 3 labels",
        ),
        ({"images": BYTES, "labels": ONES * 0.5}, r"labels must be whole numbers of shape \(images,\), got float64"),
        ({"images": BYTES, "labels": -ONES}, "got others for 4 of 4 images in .*; the first is -1, of image 0"),
        (
            {"images": BYTES, "labels": ONES * 10_000_000},
            "labels without class names must be below 100,000, got 10000000 in",
        ),
        ({"images": BYTES[..., :2], "labels": ONES}, r"must be \(n, H, W\), .* got \(4, 5, 6, 2\)"),
        ({"images": BYTES[:, :3], "labels": ONES}, "which is ambiguous"),
        ({"images": np.asfortranarray(BYTES), "labels": ONES}, "must be in C order, got Fortran order"),
        (
            {"x_train": BYTES, "y_train": ONES},
            "must be test_images and test_labels, or .*x_test and y_test.*; got x_train, y_train",
        ),
        ({}, "got none in"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused_by_name(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_images(f"npz:{tmp_path / 'x.npz'}")


def test_an_npz_that_is_cut_off_or_flipped_or_gone_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match="no file"):
        load_images(f"npz:{path}")
    np.savez(path, images=BYTES, labels=ONES)
    whole = path.read_bytes()
    cut(path, 200)
    with pytest.raises(DataError, match=r"damaged, or not written by np\.savez"):
        load_images(f"npz:{path}")
    path.write_bytes(whole)
    flipped(path, 300)
    with pytest.raises(DataError, match="damaged"):
        load_images(f"npz:{path}")


# ---- Hugging Face


def test_one_saved_set_is_both_splits(tmp_path):
    dataset(made_by.photographs(np.random.default_rng(0), 3), [2, 0, 1]).save_to_disk(tmp_path / "one")
    for split in ("train", "test"):
        assert load_images(f"hf:{tmp_path / 'one'}", split).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "name", ["{}/0000.parquet", "{}/part-00000.parquet", "data/{}-00000-of-00001.parquet", "ant_{}.parquet"]
)
def test_splits_of_parquet_are_found_in_names_of_folders_and_files(tmp_path, name):
    made = dataset(made_by.photographs(np.random.default_rng(0), 5), [2, 0, 1, 1, 2])
    for split, rows in {"train": [0, 1, 2], "validation": [3, 4]}.items():
        (tmp_path / name.format(split)).parent.mkdir(exist_ok=True)
        made.select(rows).to_parquet(tmp_path / name.format(split))
    assert load_images(f"hf:{tmp_path}", "train").labels.tolist() == [2, 0, 1]
    assert load_images(f"hf:{tmp_path}", "test").labels.tolist() == [1, 2]


def test_of_several_sets_in_a_folder_one_has_to_be_given(tmp_path):
    made = dataset(made_by.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    for folder in ("coarse", "fine"):
        (tmp_path / folder / "test").mkdir(parents=True)
        made.to_parquet(tmp_path / folder / "test/0000.parquet")
    with pytest.raises(DataError, match="has several datasets, coarse/test and fine/test; give the folder of one"):
        load_images(f"hf:{tmp_path}")
    assert load_images(f"hf:{tmp_path}/fine").labels.tolist() == [2, 0, 1]


def test_the_split_that_is_used_may_be_chosen(tmp_path):
    """The Hub's ImageNet has test images without labels."""
    made = dataset(made_by.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    for split in ("test", "dev"):
        unlabelled = made.map(lambda row, split=split: {"label": -1 if split == "test" else row["label"]})
        unlabelled.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"got others for 3 of 3 images"):
        load_images(f"hf:{tmp_path}")
    assert load_images(f"hf:{tmp_path}?test=dev").labels.tolist() == [2, 0, 1]
    with pytest.raises(DataError, match=r"must include val, got dev, test; select one with \?test=SPLIT"):
        load_images(f"hf:{tmp_path}?test=val")


def test_where_a_set_has_several_labels_one_is_chosen(tmp_path):
    from datasets import ClassLabel

    made = dataset(made_by.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    coarse = made.add_column("coarse", [1, 1, 0]).cast_column("coarse", ClassLabel(names=["insect", "pet"]))
    coarse.save_to_disk(tmp_path)
    with pytest.raises(
        DataError, match=r"one column of labels, got several \(label, coarse\); select one with \?label=COLUMN"
    ):
        load_images(f"hf:{tmp_path}")
    images = load_images(f"hf:{tmp_path}?label=coarse")
    assert images.labels.tolist() == [1, 1, 0] and images.classes == ("insect", "pet")
    with pytest.raises(SettingsError, match="did you mean 'coarse'"):
        load_images(f"hf:{tmp_path}?label=coarsse")
    with pytest.raises(SettingsError, match=r"no option 'lable'.*did you mean 'label'"):
        load_images(f"hf:{tmp_path}?lable=coarse")


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_images_without_bytes_or_labels_are_not_passed_over(tmp_path, kind):
    made = dataset(made_by.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    pointing = made.map(
        lambda row, k: {"image": {"bytes": None, "path": "gone.jpg"}} if k == 1 else row, with_indices=True
    )
    unlabelled = made.map(lambda row, k: {"label": -1 if k == 2 else row["label"]}, with_indices=True)

    def save(some, name):
        folder = tmp_path / name
        if kind == "arrow":
            # save_to_disk would fetch gone.jpg; what it writes is a stream of record batches
            import pyarrow as pa

            folder.mkdir()
            (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
            with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, some.data.schema) as out:
                out.write_table(some.data.table)
        else:
            import pyarrow.parquet as pq

            folder.mkdir()
            pq.write_table(some.data.table, folder / "0000.parquet")
        return f"hf:{folder}"

    images = load_images(save(pointing, "pointing"))
    assert images.unreadable() == {1: "empty"} and images.names[1] == "gone.jpg"
    with pytest.raises(DataError, match=r"got others for 1 of 3 images in .*; the first is -1, of image 2"):
        load_images(save(unlabelled, "unlabelled"))


def test_a_row_group_too_large_to_be_read_for_one_image_is_refused(local, monkeypatch):
    monkeypatch.setattr(huggingface, "ROW_GROUP", 1000)
    with pytest.raises(DataError, match="write it again with row_group_size=100"):
        opened(*local["hf_parquet"])


@pytest.mark.parametrize(
    "harm", [lambda path: cut(path, 3000), lambda path: path.unlink(), lambda path: path.write_bytes(b"x")]
)
@pytest.mark.parametrize("name", ["hf_arrow", "hf_parquet"])
def test_a_dataset_that_is_not_whole_is_refused(local, tmp_path, name, harm):
    made, root = local[name]
    shutil.copytree(root, tmp_path / "copy")
    path = next((tmp_path / "copy").glob("**/*-00001-of-00002.*"))
    harm(path)
    with pytest.raises(DataError, match=r"damaged|lacks a file|has 1 of 2 files"):
        opened(made, str(tmp_path / "copy"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no dataset in"),
        ({"dataset_dict.json": '{"splits": ["train"]}'}, "must include test or validation or .*, got train"),
        ({"state.json": "{"}, "state.json is damaged"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_images(f"hf:{tmp_path}")


# ---- references


def test_every_source_is_in_the_documentation_and_in_the_form_of_the_settings():
    page = (Path(__file__).parents[3] / "docs/images.md").read_text()
    described = ImageSettings.model_fields["source"].description
    assert {"folder", "imagenet", "cifar10", "cifar100", "npz", "tar", "hf", "fashion-mnist"} == set(IMAGE_SOURCES)
    for source in IMAGE_SOURCES.values():
        assert f"`{source.form}`" in page and f"`{source.form}`: {source.description}" in described


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("imagnet:x", SettingsError, "did you mean 'imagenet'"),
        ("quux:x", SettingsError, "sources are fashion-mnist, folder:PATH, imagenet:FOLDER"),
        ("fashion-mnist:x", SettingsError, "'fashion-mnist' takes no path, got 'fashion-mnist:x'"),
        ("hf:", SettingsError, "write 'hf:FOLDER'"),
        ("folder:s3://user:word@bucket/x", Exception, "the URL must not contain credentials"),
        ("cifar10:/nowhere", DataError, "lacks test_batch.bin"),
    ],
)
def test_references_to_nothing_are_told_apart(reference, error, message):
    with pytest.raises(error, match=message):
        load_images(reference)


def test_a_place_in_object_storage_without_images_is_refused(object_storage):
    with pytest.raises(DataError, match="no folder 's3://"):
        load_images(f"folder:s3://{BUCKET}/nothing-here")
    with pytest.raises(DataError, match="no tar file 's3://"):
        load_images(f"tar:s3://{BUCKET}/nothing-{{0..1}}.tar")


def test_listed_images_is_what_every_format_with_photographs_gives(local):
    for name in PHOTOGRAPHS:
        assert isinstance(opened(*local[name]), ListedImages)
