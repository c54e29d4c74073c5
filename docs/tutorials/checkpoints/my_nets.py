"""Three architectures, each a function that returns a classifier of RGB images in [0, 1]."""

from torch import nn

CLASSES = 10


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, normalisation, and half the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)
    )


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return nn.functional.relu(x + self.inner(x))


def classifier(*layers: nn.Module, width: int) -> nn.Module:
    """Average over positions; one linear layer at the end, which is where netsim cuts."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def plain() -> nn.Module:
    return classifier(block(3, 32), block(32, 64), width=64)


def residual() -> nn.Module:
    return classifier(block(3, 32), Residual(32), block(32, 64), Residual(64), width=64)


def wide() -> nn.Module:
    return classifier(block(3, 48), block(48, 96), width=96)
