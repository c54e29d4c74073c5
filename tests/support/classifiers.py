"""A small classifier with something of everything that a cut could disturb, and images for it."""

import torch
from torch import nn


def images(count: int, shape: tuple[int, int, int] = (3, 16, 16)) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


class Classifier(nn.Module):
    """Convolution, BatchNorm, dropout, two linear layers: something of everything that a cut could disturb."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.hidden = nn.Linear(32, 12)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(12, classes)

    def forward(self, x):
        return self.out(self.drop(self.hidden(self.features(x).flatten(1)).relu()))


class Normalizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("new_mean", torch.tensor([0.1, 0.2, 0.3])[:, None, None])
        self.register_buffer("new_std", torch.tensor([0.4, 0.5, 0.6])[:, None, None])

    def forward(self, x):
        return (x.clamp(0, 1) - self.new_mean) / self.new_std


class AttackerModel(nn.Module):
    """The shape of robustness.attacker.AttackerModel; tests/integration/test_parity.py has the real one."""

    def __init__(self, model):
        super().__init__()
        self.normalizer, self.model = Normalizer(), model

    def forward(self, x):
        return self.model(self.normalizer(x)), x
