"""Attacks are what an obvious loop over single images makes; test_parity.py has those of the robustness library."""

import numpy as np
import pytest
import torch
from torch import nn

from netsim.images import ArrayImages, load_images
from netsim.networks import load_network
from netsim.networks.adversarial import IMAGES, RESTARTS, STEPS, attack, robust_accuracy
from netsim.networks.training import train_epochs
from netsim.settings import AdversarialSettings

EPS = {"l2": 0.8, "linf": 0.1}


@pytest.fixture(scope="module")
def network():
    """A network that has learned something, so that its gradients lead somewhere."""
    network = load_network("small:resnet18")
    images = load_images("fashion-mnist", "train")
    few = ArrayImages("few", images.read(range(640)), images.labels[:640], images.classes)
    train_epochs(network, few, epochs=2, batch_size=32, learning_rate=0.1, weight_decay=1e-3, rng_seed=0)
    return network.double()


@pytest.fixture
def some():
    rng = np.random.default_rng(3)
    images = load_images("fashion-mnist", "test")
    chosen = rng.choice(len(images), 6, replace=False)
    return torch.from_numpy(images.read(chosen) / 255), torch.from_numpy(images.labels[chosen])


@pytest.mark.parametrize("norm", EPS)
def test_attacks_are_those_of_a_loop_over_single_images(network, some, norm):
    images, labels = some
    settings = AdversarialSettings(norm=norm, eps=EPS[norm], steps=4)
    assert settings.length == EPS[norm] / 2
    made = attack(network, images, labels, settings)
    for image, label, attacked in zip(images, labels, made, strict=True):
        x, path = image.clone(), []
        for step in range(5):
            x.requires_grad_()
            loss = -torch.log_softmax(network(x[None]), dim=1)[0, label]
            path.append((loss.item(), x.detach()))
            if step == 4:
                break
            (slope,) = torch.autograd.grad(loss, x)
            x = x.detach() + settings.length * (slope / slope.square().sum().sqrt() if norm == "l2" else slope.sign())
            change = x - image
            if norm == "linf":
                change = torch.clip(change, -settings.eps, settings.eps)
            elif change.square().sum().sqrt() > settings.eps:
                change *= settings.eps / change.square().sum().sqrt()
            x = torch.clip(image + change, 0, 1)
        np.testing.assert_allclose(attacked, max(path, key=lambda point: point[0])[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", EPS)
def test_an_attack_stays_near_raises_the_loss_and_takes_each_image_by_itself(network, some, norm):
    images, labels = some
    settings = AdversarialSettings(norm=norm, eps=EPS[norm], random_start=True)
    made = attack(network, images, labels, settings, generator=torch.Generator().manual_seed(0))
    changes = (made - images).flatten(1)
    length = changes.norm(dim=1).max() if norm == "l2" else changes.abs().max()
    assert made.min() >= 0 and made.max() <= 1 and length <= EPS[norm] * (1 + 1e-6)
    losses = [nn.functional.cross_entropy(network(x), labels, reduction="none") for x in (images, made)]
    assert (losses[1] > losses[0]).all()
    plain = AdversarialSettings(norm=norm, eps=EPS[norm])
    alone = torch.cat([attack(network, images[[i]], labels[[i]], plain) for i in range(len(images))])
    np.testing.assert_allclose(attack(network, images, labels, plain), alone, rtol=0, atol=1e-9)


def test_an_attack_where_the_loss_is_flat_leaves_the_image_alone():
    flat = AdversarialSettings(norm="l2", eps=1.0)
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    constant = lambda images: images.flatten(1)[:, :2] * 0  # noqa: E731
    assert torch.equal(attack(constant, image, torch.tensor([1]), flat), image)


class Linear(nn.Module):
    """Two classes, told apart by the sign of w . x - b."""

    def __init__(self, weights: torch.Tensor, bias: float):
        super().__init__()
        self.weights, self.bias, self.mean = weights, bias, torch.zeros(1)

    def forward(self, images):
        score = images.flatten(1) @ self.weights - self.bias
        return torch.stack([-score, score], dim=1)


@pytest.mark.parametrize("norm", EPS)
def test_robust_accuracy_of_a_linear_classifier_is_the_share_with_enough_margin(norm):
    """An attack moves the score by eps times the dual norm of the weights, while no pixel reaches black or white."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 156, (1200, 1, 3, 3)).astype(np.uint8)
    weights = torch.from_numpy(rng.normal(size=9)).float()
    scores = (pixels.reshape(1200, 9) / 255) @ weights.double().numpy()
    bias = float(np.median(scores))
    labels = (scores > bias).astype(np.int64)
    labels[::10] = 1 - labels[::10]  # which are wrong without any attack
    images = ArrayImages("random", pixels, labels, ("below", "above"))
    eps = 0.01
    reach = eps * (weights.norm() if norm == "l2" else weights.abs().sum()).item()
    margins = np.where(labels == 1, scores - bias, bias - scores)
    chosen = np.unique(np.linspace(0, 1199, IMAGES).astype(int))
    expected = (margins[chosen] > reach).mean()
    assert 0.1 < expected < 0.8
    measured = robust_accuracy(Linear(weights, bias), images, AdversarialSettings(norm=norm, eps=eps, steps=1))
    assert measured.accuracy == pytest.approx(expected, abs=0.003)
    assert (measured.norm, measured.eps, measured.images) == (norm, eps, len(chosen))
    assert measured.steps == STEPS >= 20 and measured.restarts == RESTARTS >= 2


def test_a_network_that_was_trained_on_attacked_images_withstands_attacks_better():
    test, images = load_images("fashion-mnist", "test"), load_images("fashion-mnist", "train")
    few = ArrayImages("few", images.read(range(3200)), images.labels[:3200], images.classes)
    near = AdversarialSettings(norm="l2", eps=1.0)
    withstood = []
    for adversarial in (None, near):
        network = load_network("small:vgg")
        train_epochs(
            network,
            few,
            epochs=4,
            batch_size=64,
            learning_rate=0.1,
            weight_decay=1e-3,
            rng_seed=0,
            adversarial=adversarial,
        )
        withstood.append(robust_accuracy(network, test, near).accuracy)
    assert withstood[1] > withstood[0] + 0.1
