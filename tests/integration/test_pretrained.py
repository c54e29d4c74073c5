"""Networks that somebody trained on ImageNet, from their weights to what they say of photographs. See pretrained.py."""

import numpy as np
import pytest
import torch

from integration.test_architectures import assert_linear
from netsim.images import load_images, to_unit
from netsim.networks import Network, load_network
from netsim.results.results import load_results
from netsim.settings import parse_settings
from netsim.store import layout
from support.pretrained import LITE, SIZES, make_folders, make_weights, photographs, put_photographs
from support.sweeps import new_run, run_all


@pytest.fixture(scope="module")
def references(tmp_path_factory) -> dict[str, str]:
    return make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    make_folders(folder)
    return folder


def ranks(network: Network, images: torch.Tensor, labels: list[int]) -> np.ndarray:
    """How many classes the network finds likelier than the right one."""
    with torch.no_grad():
        logits = network(images)
    right = logits[torch.arange(len(labels)), torch.tensor(labels)]
    return (logits > right[:, None]).sum(dim=1).numpy()


@pytest.mark.parametrize(("name", "top_1", "top_5"), [(LITE[0], 17, 20), (LITE[1], 19, 20), (LITE[2], 18, 20)])
def test_published_networks_know_the_photographs(name, top_1, top_5, references, folder):
    """What the weights are worth shows only if names, preprocessing, channels and labels are all right."""
    network = load_network(references[name])
    assert (network.preprocessing.size, network.width, network.num_classes) == (SIZES[name], 1280, 1000)
    images = load_images(f"folder:{folder}", size=SIZES[name])
    pixels = to_unit(images.read(np.arange(20)))
    labels = [int(images.classes[label]) for label in images.labels]
    assert sorted(labels) == sorted(photographs().values())
    found = ranks(network, pixels, labels)
    assert ((found < 1).sum(), (found < 5).sum()) == (top_1, top_5)
    assert_linear(network, pixels[:2])


def test_a_sweep_of_them_on_photographs_in_object_storage(references, object_storage, tmp_path):
    source = put_photographs(object_storage.filesystem(), "lite")
    settings = parse_settings(
        {
            "images": {"source": f"folder:{source}", "size": 224},
            "networks": [f"{name}={references[name]}" for name in LITE[:2]],
            "pairs": {"count": 8, "shard_size": 4},
            "inversion": {"preset": "fast", "iterations": 8},
        }
    )
    run = new_run(str(tmp_path / "run"), settings)
    run_all(run)
    for name in settings.names:
        losses = run.array(f"inverted/{name}/losses")[...]
        first, last = (layout.quantity(losses, quantity) for quantity in ("initial_loss", "final_loss"))
        assert (last < 0.9 * first).all()
    results = load_results(run)
    assert results.cells("natural")[0, 1] > results.cells("inverted")[0, 1]
