"""Two networks in memory have the similarity that a sweep of both would have."""

import numpy as np
import pytest
import torch

import netsim
from netsim.errors import DataError, SettingsError
from netsim.images import load_images, to_unit
from netsim.in_memory import compare
from netsim.networks import load_network
from netsim.results.findings import with_error
from netsim.results.results import load_results
from netsim.similarity.cka import linear_cka
from netsim.stages.inputs import network

RECIPE = {"pairs": 32, "shards": 4, "iterations": 5, "batch_size": 8}
"""How the tiny sweep of the tests draws and inverts."""


def some(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_a_comparison_has_the_numbers_of_a_sweep_of_both_networks(finished):
    images, results = load_images("fashion-mnist"), load_results(finished)
    networks = [network(finished, name) for name in ("vgg", "resnet18")]
    pixels = to_unit(images.read(range(len(images))))
    found = compare(*networks, pixels, images.labels, preset="published", **RECIPE)
    natural, inverted = (results.cells(name) for name in ("natural", "inverted"))
    errors = results.cells("inverted", kind="se")
    assert found.natural.value == pytest.approx(natural[0, 1], abs=1e-6)
    assert found.through_a.value == pytest.approx(inverted[0, 1], abs=1e-4)  # a sweep stores images as integers
    assert found.through_b.value == pytest.approx(inverted[1, 0], abs=1e-4)
    assert found.through_b.se == pytest.approx(errors[1, 0], abs=1e-4)
    for side, name in zip("ab", ("vgg", "resnet18"), strict=True):
        np.testing.assert_allclose(found.final_loss[side], results.loss[name].final, atol=1e-5)


def test_its_parts_are_those_of_the_functions_it_is_made_of():
    a, b = (load_network(f"small:{name}@none") for name in ("vgg", "resnet18"))
    images, labels = some(24), np.arange(24) % 3
    found = netsim.compare(a, b, images, labels, shards=3, iterations=4, rng_seed=5)
    pairs = netsim.draw_pairs(labels, 24, rng_seed=5)
    inverted = netsim.invert_images(a, images[pairs.seed], images[pairs.target], preset="fast", iterations=4)

    def unbiased(x, rows):
        with torch.no_grad():
            return linear_cka(a.represent(x)[rows], b.represent(x)[rows], "unbiased")

    targets, whole = images[pairs.target], np.arange(24)
    assert found.natural.value == pytest.approx(unbiased(targets, whole), abs=1e-6)
    assert found.through_a.value == pytest.approx(unbiased(inverted, whole), abs=1e-6)
    left_out = np.array([unbiased(targets, np.delete(whole, np.s_[8 * k : 8 * k + 8])) for k in range(3)])
    se = np.sqrt(2 / 3 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.natural.se == pytest.approx(se, abs=1e-6)
    assert found.inverted.value == pytest.approx((found.through_a.value + found.through_b.value) / 2)
    assert found.difference.value == pytest.approx(found.natural.value - found.inverted.value)


def test_without_labels_any_other_image_is_a_seed_and_a_network_is_like_itself():
    vgg = load_network("small:vgg@none")
    found = compare(vgg, vgg, some(20), shards=2, iterations=3)
    assert (found.n, found.shards) == (20, 2)
    assert found.natural.value == pytest.approx(1) and found.inverted.value == pytest.approx(1)


def test_it_prints_as_a_sentence_with_its_warnings():
    a, b = (load_network(f"small:{name}@none") for name in ("vgg", "resnet18"))
    found = compare(a, b, some(16), iterations=1, tolerance=1e-6)
    first, *rest = str(found).splitlines()
    assert first.startswith(f"natural {with_error(found.natural)}, inverted ") and "n = 16 images in 8 shards" in first
    assert [line.split(" of the images")[0] for line in rest] == ["WARNING  Not converged: 100.0 %"] * 2
    assert compare(a, b, some(16), iterations=1, tolerance=1e6).warnings == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": np.zeros((8, 1, 28, 28))}, DataError, r"images must be a tensor \(n, C, H, W\), got ndarray"),
        ({"images": torch.zeros(8, 28, 28)}, DataError, r"images must be a tensor .* got \(8, 28, 28\)"),
        ({"shards": 1}, SettingsError, "shards must be at least 2, got 1"),
        ({"pairs": 12}, SettingsError, "pairs must be a multiple of 8 shards, got 12"),
        ({"pairs": 24}, DataError, "images must be at least 24, got 16"),
        ({"images": some(4)}, DataError, "images must be at least 8, got 4"),
        ({"iterations": 0}, SettingsError, "iterations"),
        ({"labels": np.zeros(16, int)}, DataError, "labels"),
        ({"labels": np.arange(15)}, DataError, "labels must be one for each of the 16 images, got 15"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, error, message):
    vgg = load_network("small:vgg@none")
    arguments = {"images": some(16), "iterations": 1} | changes
    with pytest.raises(error, match=message):
        compare(vgg, vgg, **arguments)
