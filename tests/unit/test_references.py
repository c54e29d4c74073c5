"""The grammar of references: how images and networks are named."""

from importlib import import_module

import pytest

from netsim.errors import SettingsError
from netsim.references import (
    IMAGE_SOURCES,
    IMAGE_SOURCES_HELP,
    NAME,
    NETWORK_FORMS,
    has_photographs,
    network_name,
    parse_image_source,
    without_name,
)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("small:vgg", "vgg"),
        ("torchvision:resnet50@IMAGENET1K_V1", "resnet50"),
        ("torchvision:resnet50@s3://bucket/a=b.safetensors", "resnet50"),
        ("python:lab.models:tiny@none", "tiny"),
        ("mine=python:lab.models:tiny", "mine"),
    ],
)
def test_a_network_is_called_by_its_architecture_or_by_the_name_given(reference, name):
    assert network_name(reference) == name


@pytest.mark.parametrize(
    ("reference", "rest"),
    [
        ("small:vgg", "small:vgg"),
        ("mine=small:vgg@none", "small:vgg@none"),
        ("torchvision:resnet50@s3://bucket/a=b.safetensors", "torchvision:resnet50@s3://bucket/a=b.safetensors"),
        ("mine=torchvision:resnet50@s3://bucket/a=b.safetensors", "torchvision:resnet50@s3://bucket/a=b.safetensors"),
        ("=small:vgg", "small:vgg"),
    ],
)
def test_only_the_given_name_is_removed_from_a_reference(reference, rest):
    assert without_name(reference) == rest


@pytest.mark.parametrize("name", ["vgg", "resnet50_l2_eps0.5", "a-b", "7"])
def test_names_of_letters_digits_dots_and_dashes_are_valid(name):
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "_x", "a/b", "a b", "a\n", "ä"])
def test_names_that_could_leave_their_folder_or_hide_in_it_are_invalid(name):
    assert not NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("reference", "kind", "path"),
    [
        ("fashion-mnist", "fashion-mnist", ""),
        ("folder:photos", "folder", "photos"),
        ("folder:s3://bucket/photos", "folder", "s3://bucket/photos"),  # only the first colon counts
        ("hf:data?label=fine", "hf", "data?label=fine"),
    ],
)
def test_an_image_reference_is_a_kind_and_a_path(reference, kind, path):
    source, rest = parse_image_source(reference)
    assert (source.kind, rest) == (kind, path)
    assert source.requires_path == bool(path)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("flder:x", r"^no image source 'flder:x'; did you mean 'folder'\?; sources are fashion-mnist, folder:PATH"),
        ("npz", r"^image source 'npz' requires a path: write 'npz:FILE'$"),
        ("npz:", r"^image source 'npz:' requires a path: write 'npz:FILE'$"),
        ("fashion-mnist:x", r"^image source 'fashion-mnist' takes no path, got 'fashion-mnist:x'$"),
    ],
)
def test_an_invalid_image_reference_is_refused_with_the_valid_form(reference, message):
    with pytest.raises(SettingsError, match=message):
        parse_image_source(reference)


def test_photographs_are_the_sources_with_encoded_files():
    kinds = {kind for kind, source in IMAGE_SOURCES.items() if has_photographs(source.form)}
    assert kinds == {"folder", "imagenet", "tar", "hf"}
    assert not has_photographs("unknown:x")


def test_every_image_source_has_a_reader_and_a_line_of_help():
    for source in IMAGE_SOURCES.values():
        module, _, function = source.loader.partition(":")
        assert callable(getattr(import_module(f"netsim.images.formats.{module}"), function))
        assert f"`{source.form}`: {source.description}" in IMAGE_SOURCES_HELP


def test_every_form_of_a_network_begins_with_its_source():
    assert all(form.startswith(f"{source}:") for source, (form, _) in NETWORK_FORMS.items())
