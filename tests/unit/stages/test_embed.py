"""Every network's representations of every set are stored, and must be finite."""

import numpy as np
import pytest
import torch

from netsim.errors import NetworkError
from netsim.networks import Network
from netsim.stages import embed, inputs
from netsim.store.layout import sets
from netsim.store.stages import EMBED
from support.sweeps import unit_of


def test_stored_representations_are_those_of_the_stored_images(finished):
    """All images at once, against shards in batches."""
    for set_name in sets(finished.sweep):
        stored = {"natural": "images/target", "seed": "images/seed"}.get(set_name, f"{set_name}/image")
        steps = finished.array(stored)[...]
        images = torch.from_numpy(steps / np.float32(np.iinfo(steps.dtype).max))
        for observer in finished.settings.names:
            with torch.no_grad():
                expected = inputs.network(finished, observer).represent(images)
            representation = finished.array(f"representations/{set_name}/{observer}")[...]
            assert representation.dtype == np.float32
            np.testing.assert_allclose(representation, expected, rtol=1e-4, atol=1e-5)


def test_a_record_names_the_weights_of_every_observer(finished):
    record = finished.record(*unit_of(finished, EMBED, "inverted/resnet18", 3))
    assert record.facts["weights"] == {
        name: finished.record("train", name).facts["weights_hash"] for name in finished.settings.names
    }


def test_computing_a_shard_again_gives_the_same_bits(finished):
    unit = unit_of(finished, EMBED, "inverted/vgg", 1)
    result, record = embed.compute(finished, *unit[1:]), finished.record(*unit)
    assert result.arrays.keys() == record.arrays.keys()
    for path, values in result.arrays.items():
        np.testing.assert_array_equal(values, finished.read(record, path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_representation_that_is_not_finite_is_an_error(finished, monkeypatch, value):
    """A network may overflow on some images although it does not on those it was checked with."""

    def overflowing(network: Network, images: torch.Tensor) -> torch.Tensor:
        representation = inputs.represent(network, images)
        representation[-1, -1] = value if network is inputs.network(finished, "shufflenet") else 0
        return representation

    monkeypatch.setattr(embed, "represent", overflowing)
    expected = r"^the representation of natural shard 0 by shufflenet must be finite$"
    with pytest.raises(NetworkError, match=expected):
        embed.compute(finished, *unit_of(finished, EMBED, "natural", 0)[1:])
