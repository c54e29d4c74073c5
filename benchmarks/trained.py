"""Networks of CIFAR-10's size, trained standard or adversarially, on which presets are compared.

None of them is part of the demo. A trained network is kept under runs/benchmarks, by architecture, training and images,
and loaded from there the next time.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import make_layers

from netsim.images import ArrayImages, ImageSet, load_images, to_unit
from netsim.images.pairs import draw_pairs
from netsim.networks import Network, Preprocessing
from netsim.networks.sources.small import SmallResNet, SmallVGG
from netsim.networks.training import accuracy, one_cycle, train_epochs

KEPT = Path(__file__).parents[1] / "runs/benchmarks"


def resnet(channels: int, num_classes: int) -> nn.Module:
    """Build a ResNet-10: one basic block per stage, 16 to 128 channels; its first stage works on every pixel."""
    network = SmallResNet(BasicBlock, [1, 1, 1, 1], divisor=4, num_classes=num_classes)
    network.conv1, network.maxpool = _stem(channels, 16), nn.Identity()
    return network


def vgg(channels: int, num_classes: int) -> nn.Module:
    """Build a VGG: eight convolutions of 16 to 128 channels, and a hidden linear layer."""
    features = make_layers([16, 16, "M", 32, 32, "M", 64, 64, "M", 128, 128], batch_norm=True)
    features[0] = _stem(channels, 16)
    classifier = nn.Sequential(nn.Linear(128 * 4, 128), nn.ReLU(inplace=True), nn.Linear(128, num_classes))
    return SmallVGG(features, nn.AdaptiveAvgPool2d(2), classifier)


def bottleneck(channels: int, num_classes: int) -> nn.Module:
    """Build a ResNet-14: one bottleneck block per stage, 8 to 64 channels inside, 32 to 256 outside."""
    network = SmallResNet(Bottleneck, [1, 1, 1, 1], divisor=8, num_classes=num_classes)
    network.conv1, network.maxpool = _stem(channels, 8), nn.Identity()
    return network


def _stem(channels: int, width: int) -> nn.Conv2d:
    stem = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


ARCHITECTURES: dict[str, Callable[[int, int], nn.Module]] = {"resnet": resnet, "vgg": vgg, "bottleneck": bottleneck}


def add_choices(parser: ArgumentParser) -> None:
    """Add the options that choose the images and how the networks are trained on them."""
    parser.add_argument(
        "--images", default="fashion-mnist", help="image source: fashion-mnist, or folder:PATH with train/ and test/"
    )
    parser.add_argument(
        "--radius", type=float, nargs="*", default=[0.0, 0.5], help="L2 radius of adversarial training; 0: standard"
    )


def image_sets(reference: str) -> tuple[ImageSet, ImageSet]:
    """Load the training and test images into memory, at 32 x 32 pixels if they come from a folder."""
    size = 32 if reference.startswith("folder:") else None
    return _in_memory(load_images(reference, "train", size)), _in_memory(load_images(reference, "test", size))


def draw_images(images: ImageSet, count: int) -> tuple[Tensor, Tensor]:
    """Draw `count` pairs; return seeds and targets, (count, C, H, W) each in [0, 1]."""
    drawn = draw_pairs(images.labels, count, rng_seed=0)
    return to_unit(images.read(drawn.seed)), to_unit(images.read(drawn.target))


def _in_memory(images: ImageSet) -> ImageSet:
    return ArrayImages(images.name, images.read(np.arange(len(images))), images.labels, images.classes)


def trained(architecture: str, training: ImageSet, *, radius: float, epochs: int = 6, count: int = 20_000) -> Network:
    """Train an architecture on the first images of each class, or load it if it is kept.

    Parameters
    ----------
    radius
        L2 length of the attack in adversarial training [1]_, in pixels of [0, 1]; 0 trains standard.
    count
        Images in all; each class has the same number.

    References
    ----------
    .. [1] Madry et al. 2018, https://arxiv.org/abs/1706.06083
    """
    training = _share(training, count)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ARCHITECTURES[architecture](training.shape[0], len(training.classes))
    channels = (0, 2, 3)
    pixels = training.read(np.arange(0, len(training), 10)) / 255
    network = Network(
        model,
        to_unit(training.read([0, 1])),
        name=architecture if radius == 0 else f"{architecture}, adversarially trained",
        reference=f"benchmarks:{architecture}",
        preprocessing=Preprocessing(pixels.mean(axis=channels).tolist(), pixels.std(axis=channels).tolist()),
    )
    kept = KEPT / f"{architecture}-{radius:g}-{epochs}-{training.content_hash()[:12]}.safetensors"
    if kept.exists():
        network.load_state_dict(safetensors.torch.load_file(kept))
        return network
    if radius == 0:
        train_epochs(network, training, epochs=epochs, batch_size=128, learning_rate=0.1, weight_decay=5e-4, rng_seed=0)
    else:
        _train_adversarially(network, training, radius=radius, epochs=epochs)
    kept.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(network.state_dict(), kept)
    return network


def _share(images: ImageSet, count: int) -> ImageSet:
    """Select the first `count` images, the same number of each class, in their order."""
    each = count // len(images.classes)
    rows = np.sort(np.concatenate([np.flatnonzero(images.labels == k)[:each] for k in range(len(images.classes))]))
    return ArrayImages(images.name, images.read(rows), images.labels[rows], images.classes)


def _train_adversarially(network: Network, images: ImageSet, *, radius: float, epochs: int) -> None:
    """Train by stochastic gradient descent on attacked images, with the learning rate of `train_epochs`."""
    network.requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(images) // 128
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(images))
        for step in range(steps):
            rows = order[step * 128 : (step + 1) * 128]
            pixels, labels = to_unit(images.read(rows)), torch.from_numpy(images.labels[rows])
            optimizer.param_groups[0]["lr"] = 0.1 * one_cycle((epoch * steps + step) / (epochs * steps))
            network.eval()
            attacked = attack(network, pixels, labels, radius=radius)
            network.train()
            loss = nn.functional.cross_entropy(network(attacked), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    network.eval().requires_grad_(False)


def attack(network: Network, images: Tensor, labels: Tensor, *, radius: float, steps: int = 2) -> Tensor:
    """Move images (n, C, H, W) by at most `radius` (L2) to raise the loss of their labels."""
    moved = images
    for _ in range(steps):
        moved = moved.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(network(moved), labels), moved)
        length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
        offset = moved.detach() + gradient * (0.7 * radius / length) - images
        moved = (images + torch.renorm(offset, p=2, dim=0, maxnorm=radius)).clamp(0, 1)
    return moved.detach()


def accuracies(network: Network, test: ImageSet, *, radius: float) -> tuple[float, float]:
    """Compute accuracy on `test`, and on 500 of its images attacked within `radius` in ten steps."""
    rows = np.arange(500) * (len(test) // 500)
    labels = torch.from_numpy(test.labels[rows])
    attacked = attack(network, to_unit(test.read(rows)), labels, radius=radius, steps=10)
    with torch.no_grad():
        right = network(attacked).argmax(dim=1) == labels
    return accuracy(network, test), right.double().mean().item()
