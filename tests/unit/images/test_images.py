"""load_images: what every format has in common, on disk and in object storage, and errors of references."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from netsim.errors import DataError, SettingsError
from netsim.images import ListedImages, load_images
from netsim.references import IMAGE_SOURCES
from netsim.settings import ImageSettings
from support.image_formats import FORMATS, PHOTOGRAPHS, by_torchvision, open_made
from support.seaweed import BUCKET

SIZE = 16


@pytest.mark.parametrize("place", ["local", "remote"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_what_was_written_on_a_disk_and_in_object_storage(name, place, request):
    made, root = request.getfixturevalue(place)[name]
    images = open_made(made, root, size=SIZE)
    assert (len(images), images.classes, images.labels.tolist()) == (12, made.classes, made.labels)
    assert images.labels.dtype == np.int64
    expected = np.stack([by_torchvision(pixels, SIZE) for pixels in made.pixels])
    assert images.shape == expected.shape[1:]
    pixels = images.read(range(12))
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, expected)
    assert np.array_equal(images.read([7, 3, 7, 11]), expected[[7, 3, 7, 11]])
    assert images.read([]).shape == (0, *images.shape)


@pytest.mark.parametrize("name", FORMATS)
def test_a_path_of_images_means_itself_and_not_its_neighbour(name, local, tmp_path):
    made, root = local[name]
    for folder in ("exp::2 [1]*#%20$HOME", "exp"):
        shutil.copytree(root, tmp_path / folder)
    for path in (tmp_path / "exp").rglob("*"):
        if path.is_file():
            path.write_bytes(b"of another experiment")
    images = open_made(made, f"{tmp_path}/exp::2 [1]*#%20$HOME", size=SIZE)
    assert np.array_equal(images.read(range(12)), open_made(made, root, size=SIZE).read(range(12)))


def test_files_at_the_root_of_the_disk_are_not_those_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("images-4711.tar", "images-4711.npz"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match=f"no (tar )?file '/{name}'"):
            load_images(f"{name.rpartition('.')[2]}:/{name}")


@pytest.mark.parametrize("name", FORMATS)
def test_the_hash_does_not_depend_on_where_images_lie_but_on_how_they_are_prepared(name, local, remote):
    hashes = [
        open_made(*which[name], size=size).content_hash() for which in (local, remote) for size in (SIZE, SIZE + 1)
    ]
    assert hashes[:2] == hashes[2:] and hashes[0] != hashes[1]


@pytest.mark.parametrize("name", FORMATS)
def test_the_hash_changes_with_an_image(name, local, tmp_path):
    """Made again with other random numbers, in which labels may be other ones too."""
    other = FORMATS[name](tmp_path / "other", np.random.default_rng(99))
    assert open_made(other, str(tmp_path / "other")).content_hash() != open_made(*local[name]).content_hash()


@pytest.mark.parametrize("name", ["cifar10", "npz"])
def test_images_that_have_one_size_keep_it_unless_another_is_asked_for(name, local):
    made, root = local[name]
    images = open_made(made, root)
    assert images.shape[1:] == made.pixels[0].shape[:2]
    assert np.array_equal(images.read(range(12)), np.stack(made.pixels).transpose(0, 3, 1, 2))


def test_listed_images_is_what_every_format_with_photographs_gives(local):
    for name in PHOTOGRAPHS:
        assert isinstance(open_made(*local[name]), ListedImages)


def test_every_source_is_in_the_documentation_and_in_the_form_of_the_settings():
    page = (Path(__file__).parents[3] / "docs/howto/images.md").read_text()
    described = ImageSettings.model_fields["source"].description
    assert {"folder", "imagenet", "cifar10", "cifar100", "npz", "tar", "hf", "fashion-mnist"} == set(IMAGE_SOURCES)
    for source in IMAGE_SOURCES.values():
        assert f"`{source.form}`" in page and f"`{source.form}`: {source.description}" in described


@pytest.mark.parametrize(
    ("reference", "options", "error", "message"),
    [
        ("fashion-mnits", {}, SettingsError, "did you mean 'fashion-mnist'"),
        (
            "fashion-mnist",
            {"size": 32},
            SettingsError,
            "size of fashion-mnist images must be 28, got 32; remove images.size",
        ),
        ("fashion-mnist", {"split": "tset"}, SettingsError, "split must be 'train' or 'test', got 'tset'"),
        ("folder:", {}, SettingsError, "folder:PATH"),
        ("folder:{empty}", {}, DataError, "no images in .*, got no files; write <class>/<image>, ending in .jpg"),
        ("folder:{empty}", {"size": 0}, SettingsError, "size of images must be at least 1 pixel, got 0"),
        ("folder:{empty}/nowhere", {}, DataError, "no folder .*; images.source must be an existing folder"),
    ],
)
def test_image_sets_that_do_not_exist_are_told_apart(tmp_path, reference, options, error, message):
    with pytest.raises(error, match=message):
        load_images(reference.format(empty=tmp_path), **options)


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("imagnet:x", SettingsError, "did you mean 'imagenet'"),
        ("quux:x", SettingsError, "sources are fashion-mnist, folder:PATH, imagenet:FOLDER"),
        ("fashion-mnist:x", SettingsError, "'fashion-mnist' takes no path, got 'fashion-mnist:x'"),
        ("hf:", SettingsError, "write 'hf:FOLDER'"),
        ("hf:what?", SettingsError, r"options after \? must be NAME=VALUE, got hf:what\?; write \?image=COLUMN"),
        ("hf:a?b", SettingsError, "options after"),
        ("npz:s3://a.npz", Exception, "images.source must name a file, got s3://a.npz"),
        ("folder:s3://bucket//x", Exception, "images.source must be a URL without empty parts"),
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
