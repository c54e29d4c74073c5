"""Images and a small convolutional network with BatchNorm, for tests of the engine and of what it is made of."""

import torch
from torch import nn

from netsim.inversion.precision import Precision
from netsim.networks import as_network

HALF = Precision("float16", "float16")


def images(n, shape=(3, 16, 16), *, rng_seed=1, dtype=torch.float32):
    return torch.rand(n, *shape, generator=torch.manual_seed(rng_seed), dtype=torch.float64).to(dtype)


def norms_with_statistics(model, shape=(3, 16, 16)):
    """The model in evaluation mode, after its BatchNorms have seen images."""
    model.train()
    with torch.no_grad():
        for batch in range(3):
            model(images(16, shape, rng_seed=100 + batch, dtype=next(model.parameters()).dtype))
    return model.eval()


def convolutional(*, dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, stride=2, groups=4),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).to(dtype)
    return as_network(norms_with_statistics(model), images(2, dtype=dtype))


class Branching(nn.Module):
    """A classifier that looks at its images before it decides what to do: on a GPU, it waits for the device."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(3 * 16 * 16, 5)

    def forward(self, x):
        return self.out(x.flatten(1) * (2 if x.max() > 3 else 1))


class Scaled(nn.Module):
    """An identity layer whose gradient is multiplied by 2**`power`."""

    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, x):
        return Steep.apply(x, 2.0**self.power)


class Steep(torch.autograd.Function):
    @staticmethod
    def forward(context, x, slope):
        context.slope = slope
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * context.slope, None
