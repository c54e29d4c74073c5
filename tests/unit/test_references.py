"""The grammar of references: how images and networks are named."""

from importlib import import_module

import pytest

from netsim.errors import SettingsError
from netsim.networks.load import network_source
from netsim.references import (
    IMAGE_SOURCES,
    IMAGE_SOURCES_HELP,
    NAME,
    NETWORK_FORMS,
    PUBLISHED_SOURCES,
    TRAINED_SOURCES,
    has_photographs,
    images_with_absolute_path,
    module_file,
    network_name,
    parse_image_source,
    split_folder,
    split_key,
    with_absolute_paths,
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


def test_which_sources_publish_weights_and_which_are_trained_agrees_with_the_sources():
    sources = {name: network_source(name) for name in NETWORK_FORMS}
    assert {name for name, source in sources.items() if source.publishes} == set(PUBLISHED_SOURCES)
    assert {name for name, source in sources.items() if source.trains} == set(TRAINED_SOURCES)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("x.pt", ("x.pt", None)),
        ("x.pt#", ("x.pt", "")),
        ("a/x.pth.tar#state_dict_ema", ("a/x.pth.tar", "state_dict_ema")),
        ("s3://b/x.ckpt#state_dict.model", ("s3://b/x.ckpt", "state_dict.model")),
        ("x.safetensors#module", ("x.safetensors", "module")),
        ("x#1", ("x#1", None)),
        ("run#1.pt", ("run#1.pt", None)),
        ("run#1.pt#model", ("run#1.pt", "model")),
    ],
)
def test_a_key_follows_a_checkpoint_after_a_hash_sign(file, expected):
    assert split_key(file) == expected


@pytest.mark.parametrize(
    ("reference", "absolute"),
    [
        ("small:vgg", "small:vgg"),
        ("small:vgg@none", "small:vgg@none"),
        ("small:vgg@w", "small:vgg@/lab/w"),
        ("a=small:vgg@./w.pt#ema", "a=small:vgg@/lab/w.pt#ema"),
        ("small:vgg@../w.pt", "small:vgg@/lab/../w.pt"),  # not /w.pt: /lab may be a link
        ("small:vgg@/w.pt", "small:vgg@/w.pt"),
        ("small:vgg@~/w.pt", "small:vgg@~/w.pt"),
        ("small:vgg@s3://bucket/w.pt", "small:vgg@s3://bucket/w.pt"),
        ("small:vgg@file:/w.pt", "small:vgg@file:/w.pt"),
        ("small:vgg@C:\\w.pt", "small:vgg@C:\\w.pt"),
        ("timm:resnet18@a1_in1k", "timm:resnet18@a1_in1k"),
        ("timm:resnet18@{tag}", "timm:resnet18@{tag}"),
        ("timm:resnet18@runs/{tag}.pt", "timm:resnet18@/lab/runs/{tag}.pt"),
        ("robust:vgg16_bn_l2_eps3", "robust:vgg16_bn_l2_eps3"),
        ("python:math:sin", "python:math:sin"),
        ("python:../nets:large@w.pt", "python:/lab/../nets:large@/lab/w.pt"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_paths_of_a_network_start_from_a_folder_and_names_are_no_paths(reference, absolute):
    assert with_absolute_paths(reference, "/lab") == absolute
    assert with_absolute_paths(absolute, "/other") == absolute


def test_a_module_that_is_in_the_folder_is_named_with_it(tmp_path):
    folder = tmp_path / "me@lab"
    (folder / "deep" / "er").mkdir(parents=True)
    for file in ("nets.py", "deep/er/__init__.py"):
        (folder / file).touch()
    assert module_file(str(folder), "nets") == f"{folder}/nets.py"
    assert module_file(str(folder), "deep") is None  # a folder of that name may hold anything
    located = with_absolute_paths("n=python:deep.er:net@w.pt", str(folder))
    assert located == f"n=python:{tmp_path}/me%40lab/deep.er:net@{folder}/w.pt"
    assert network_name(with_absolute_paths("python:nets:large", str(folder))) == "large"
    assert split_folder(located.partition(":")[2].partition("@")[0]) == (str(folder), "deep.er:net")
    assert split_folder("/nets:large") == ("/", "nets:large")


@pytest.mark.parametrize(
    ("reference", "absolute"),
    [
        ("fashion-mnist", "fashion-mnist"),
        ("folder:photos", "folder:/lab/photos"),
        ("tar:train-{000..099}.tar", "tar:/lab/train-{000..099}.tar"),
        ("npz:/x.npz", "npz:/x.npz"),
        ("folder:s3://bucket/photos", "folder:s3://bucket/photos"),
        ("folder:", "folder:"),
        ("flder:x", "flder:x"),
    ],
)
def test_paths_of_images_start_from_a_folder(reference, absolute):
    assert images_with_absolute_path(reference, "/lab") == absolute
