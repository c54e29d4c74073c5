"""References taken apart, and which of them name a file."""

import pytest

from netsim.networks.sources.base import NetworkSource, Reference


def unused(*_: object) -> None:
    raise AssertionError("weights_file needs neither")


@pytest.mark.parametrize(
    ("name", "architecture"), [("vgg", "vgg"), ("cifar:resnet50", "resnet50"), ("lab.models:tiny", "tiny")]
)
def test_the_architecture_comes_after_the_last_colon(name, architecture):
    assert Reference("any", name, None).architecture == architecture


@pytest.mark.parametrize(
    ("weights", "published", "own"),
    [
        (None, None, None),
        ("none", None, None),
        ("IMAGENET1K_V1", None, "IMAGENET1K_V1"),
        ("a1_in1k", None, "a1_in1k"),
        ("x.safetensors", "x.safetensors", "x.safetensors"),
        ("folder/x", "folder/x", "folder/x"),
        ("s3://b/x.safetensors", "s3://b/x.safetensors", "s3://b/x.safetensors"),
    ],
)
def test_a_name_without_dots_and_slashes_is_a_file_unless_the_source_publishes_weights(weights, published, own):
    parsed = Reference("any", "vgg", weights)
    assert NetworkSource(unused, unused, publishes=True).weights_file(parsed) == published
    assert NetworkSource(unused, unused).weights_file(parsed) == own


def test_a_source_without_files_of_its_own_has_no_hint():
    assert NetworkSource(unused, unused).hint(Reference("any", "vgg", "x.safetensors")) == ""
