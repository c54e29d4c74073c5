"""Preprocessing: what a module does not state changes nothing, and what it states is recorded."""

import json

import pytest
import torch

import netsim
from netsim.errors import NetworkError
from netsim.networks import as_network, content_hash, load_network
from support.classifiers import Classifier, images


@pytest.mark.parametrize(
    ("expects", "black", "white"),
    [
        (netsim.Preprocessing(largest=255), 0, 255),
        (netsim.Preprocessing(largest=255, mean=(100, 100, 100)), -100, 155),
        (netsim.Preprocessing(std=(0.5, 0.5, 0.5)), 0, 2),
        (netsim.Preprocessing(), 0, 1),
    ],
)
def test_what_a_module_does_not_say_changes_nothing(expects, black, white):
    model = Classifier()
    model.preprocessing = expects
    network = as_network(model, images(1))
    for pixel, expected in ((0, black), (1, white)):
        given = network.normalised(torch.full((1, 3, 16, 16), float(pixel)))
        torch.testing.assert_close(given, torch.full_like(given, expected))


def test_images_of_another_shape_than_the_network_reads_are_refused():
    with pytest.raises(NetworkError, match="requires images of 1 channels, got 3"):
        load_network("small:vgg", input_shape=(3, 28, 28))


def test_the_shape_is_that_of_imagenet_unless_stated():
    assert netsim.Preprocessing().shape == (3, 224, 224)
    assert netsim.Preprocessing(mean=(0.5,), size=28).shape == (1, 28, 28)
    assert netsim.Preprocessing(mean=torch.zeros(3, 1, 1), size=64).shape == (3, 64, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_and_std_on_the_unit_scale_normalise_pixels_in_0_to_1_alike(dtype):
    pixels = images(2).to(dtype)
    mean, std = torch.tensor([100.0, 110.0, 120.0], dtype=dtype), torch.tensor([50.0, 60.0, 70.0], dtype=dtype)
    by_hand = (255 * pixels - mean[:, None, None]) / std[:, None, None]
    unit_mean, unit_std = netsim.Preprocessing(mean, std, largest=255).on_unit_scale(pixels, name="x")
    assert unit_mean.shape == unit_std.shape == (3, 1, 1) and unit_mean.dtype == unit_std.dtype == dtype
    torch.testing.assert_close((pixels - unit_mean) / unit_std, by_hand)


def test_grey_images_have_no_order_of_channels():
    grey = netsim.Preprocessing(order="BGR")
    with pytest.raises(NetworkError, match=r"^x requires BGR images of 3 channels, got 1$"):
        grey.on_unit_scale(torch.zeros(1, 1, 4, 4), name="x")


def test_crop_and_interpolation_are_recorded_and_change_nothing():
    model = Classifier().eval()
    plain = as_network(model, images(1))
    model.preprocessing = netsim.Preprocessing(size=16, crop=0.5, interpolation="bicubic")
    cropped = as_network(model, images(1))
    assert content_hash(cropped) == content_hash(plain)
    assert torch.equal(cropped(images(3)), plain(images(3)))
    assert cropped.preprocessing.to_json() == {
        "largest": 1.0,
        "order": "RGB",
        "size": 16,
        "crop": 0.5,
        "interpolation": "bicubic",
    }


def test_json_has_lists_for_tensors_and_nothing_for_none():
    preprocessing = netsim.Preprocessing(mean=torch.tensor([0.25, 0.5])[:, None, None], std=(1, 2))
    assert json.loads(json.dumps(preprocessing.to_json())) == {
        "mean": [0.25, 0.5],
        "std": [1, 2],
        "largest": 1.0,
        "order": "RGB",
    }


def test_a_converted_file_replaces_mean_and_std_if_it_has_both():
    preprocessing = netsim.Preprocessing((0.5,), (0.5,), size=28)
    assert preprocessing.with_metadata({}) is preprocessing
    assert preprocessing.with_metadata({"mean": [0.1]}) is preprocessing
    replaced = preprocessing.with_metadata({"mean": [0.1], "std": [0.2], "sha256": "0"})
    assert replaced == netsim.Preprocessing((0.1,), (0.2,), size=28)
    with pytest.raises(
        NetworkError, match=r"^std in the metadata of the weights must be a list of numbers, got \['a'\]$"
    ):
        preprocessing.with_metadata({"mean": [0.1], "std": ["a"]})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": "bgr"}, "order of a Preprocessing must be RGB or BGR, got 'bgr'"),
        ({"mean": "grey"}, "mean of a Preprocessing must be finite numbers, got 'grey'"),
        ({"mean": (10**400,)}, "mean of a Preprocessing must be finite numbers, got"),
        ({"largest": 10**400}, "largest of a Preprocessing must be finite numbers other than 0, got 1000"),
        ({"mean": (float("nan"),) * 3}, "mean of a Preprocessing must be finite numbers"),
        ({"std": (0.2, 0.0, 0.2)}, "std of a Preprocessing must be finite numbers other than 0"),
        ({"largest": 0}, "largest of a Preprocessing must be finite numbers other than 0, got 0"),
    ],
)
def test_values_that_normalise_nothing_are_refused(fields, message):
    with pytest.raises(NetworkError, match=message):
        netsim.Preprocessing(**fields)
