"""small:NAME: nine small networks, torchvision's classes scaled down so that a laptop suffices, for 28x28 grey images.

They are the families of Jones et al. 2022 (UAI, PMLR 180:928-937): DenseNet, MobileNetV2, ResNeXt, ResNet-18 and -50,
ShuffleNetV2, VGG and two wide ResNets. Each keeps what defines its family: dense connections, inverted residuals,
grouped convolutions, basic or bottleneck blocks, channel shuffle, hidden linear layers, the width of a bottleneck. The
numbers of blocks and of channels differ, and so does the stem: 3x3. Grey images shrink by a factor of 4 before the
first block, as in the originals (MobileNetV2 and ShuffleNetV2: within it), so that blocks see 7x7 pixels and are cheap.
`netsim.networks.sources.small32` scales the same networks to colour images; the numbers below are for grey ones.

All map (n, C, H, W) to (n, num_classes). How well they can be inverted depends on their training: see
`netsim.networks.training`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torchvision.models import VGG, DenseNet, MobileNetV2, ResNet, ShuffleNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import make_layers
from torchvision.ops import Conv2dNormActivation

from netsim.errors import SettingsError, nearest
from netsim.networks.preprocessing import Preprocessing
from netsim.networks.sources.base import Built, NetworkSource, Reference


@dataclass(frozen=True)
class Scale:
    """The images that networks are made for, and their size.

    Attributes
    ----------
    shape
        (C, H, W) of an image.
    mean, std
        Of its channels, in [0, 1].
    width
        Factor on the number of channels of every layer: 1, 2, 4 or 8.
    stride
        Stride of the first convolution.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: int
    stride: int


GREY = Scale(shape=(1, 28, 28), mean=(0.286,), std=(0.353,), width=1, stride=2)
"""28x28 grey images. Mean and standard deviation are those of Fashion-MNIST's 60,000 training images."""


class SmallResNet(ResNet):
    """ResNet with `divisor` times fewer channels in the stem and in every stage, and the stem of a scale."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: list[int],
        *,
        divisor: int,
        num_classes: int,
        scale: Scale = GREY,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        self.divisor, self.scale = divisor, scale  # before super(), which builds the stages
        super().__init__(block, layers, num_classes, groups=groups, width_per_group=width_per_group)
        self.fc = nn.Linear(512 // divisor * block.expansion, num_classes)

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        if not hasattr(self, "layer1"):  # super() has just built a stem of 64 channels, and begins with the first stage
            self.inplanes = planes // self.divisor
            self.conv1 = _stem(self.inplanes, self.scale)
            self.bn1 = nn.BatchNorm2d(self.inplanes)
        return super()._make_layer(block, planes // self.divisor, blocks, stride, dilate)


def resnet18(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """ResNet-18: basic blocks, two per stage as in the original; 8 to 64 channels."""
    return SmallResNet(BasicBlock, [2, 2, 2, 2], divisor=8 // scale.width, num_classes=num_classes, scale=scale)


def resnet50(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """ResNet-50: 1, 1, 2, 1 bottlenecks per stage instead of 3, 4, 6, 3; 8 to 64 channels inside, 32 to 256 outside."""
    return _bottlenecks(num_classes, scale)


def resnext(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """ResNeXt-50: `resnet50` with 3x3 convolutions twice as wide, as in 32x4d, in 4 groups instead of 32."""
    return _bottlenecks(num_classes, scale, groups=4, width_per_group=32)


def wrn2(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """Wide ResNet-50-2: `resnet50`, twice as wide inside."""
    return _bottlenecks(num_classes, scale, width_per_group=128)


def wrn4(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """Wide ResNet-50-4: `resnet50`, four times as wide inside."""
    return _bottlenecks(num_classes, scale, width_per_group=256)


def _bottlenecks(num_classes: int, scale: Scale, *, groups: int = 1, width_per_group: int = 64) -> nn.Module:
    return SmallResNet(
        Bottleneck,
        [1, 1, 2, 1],
        divisor=8 // scale.width,
        num_classes=num_classes,
        scale=scale,
        groups=groups,
        width_per_group=width_per_group,
    )


def densenet(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """DenseNet: three dense blocks instead of four, of 2, 3 and 3 layers, each adding 16 channels."""
    channels = 16 * scale.width
    network = DenseNet(channels, block_config=(2, 3, 3), num_init_features=channels, num_classes=num_classes)
    network.features.conv0 = _stem(channels, scale)
    return network


def mobilenet(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """MobileNetV2: five inverted residuals instead of 17, expanding by 4, not 6; 128 channels at the end, not 1280."""
    blocks = [[1, 16, 1, 2], [4, 48, 2, 1], [4, 96, 2, 2]]  # expansion, channels, repeats, stride
    first, last, width = (channels * scale.width for channels in (16, 48, 128))
    network = MobileNetV2(num_classes=num_classes, width_mult=scale.width / 2, inverted_residual_setting=blocks)
    network.features[0][0] = _stem(first, scale)
    network.features[-1] = Conv2dNormActivation(last, width, kernel_size=1, activation_layer=nn.ReLU6)
    network.classifier[1] = nn.Linear(width, num_classes)
    return network


def shufflenet(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """ShuffleNetV2: two units per stage instead of 4, 8, 4; no max-pooling, because every stage halves the image."""
    channels = [channels * scale.width for channels in (16, 32, 64, 128, 128)]
    network = ShuffleNetV2([2, 2, 2], channels, num_classes=num_classes)
    network.conv1[0] = _stem(channels[0], scale)
    network.maxpool = nn.Identity()
    return network


class SmallVGG(VGG):
    """VGG with other linear layers, without its own constructor, which would draw 119 million weights in vain."""

    def __init__(self, features: nn.Module, avgpool: nn.Module, classifier: nn.Module) -> None:
        nn.Module.__init__(self)
        self.features = features
        self.avgpool = avgpool
        self.classifier = classifier


def vgg(num_classes: int = 10, scale: Scale = GREY) -> nn.Module:
    """VGG: five plain 3x3 convolutions with BatchNorm instead of 13; linear layers of width 128 instead of 4096."""
    first, second, third, hidden = (channels * scale.width for channels in (16, 32, 64, 128))
    features = make_layers([first, "M", second, second, "M", third, third], batch_norm=True)
    features[0] = _stem(first, scale)
    classifier = nn.Sequential(
        nn.Linear(third * 3 * 3, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(hidden, num_classes),
    )
    return SmallVGG(features, nn.AdaptiveAvgPool2d((3, 3)), classifier)


def _stem(channels: int, scale: Scale) -> nn.Conv2d:
    """Build the first convolution, without a bias, because BatchNorm follows."""
    stem = nn.Conv2d(scale.shape[0], channels, kernel_size=3, stride=scale.stride, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


SMALL: dict[str, Callable[..., nn.Module]] = {
    "densenet": densenet,
    "mobilenet": mobilenet,
    "resnext": resnext,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "shufflenet": shufflenet,
    "vgg": vgg,
    "wrn2": wrn2,
    "wrn4": wrn4,
}


def check(parsed: Reference) -> None:
    """Raise SettingsError for an unknown name."""
    if parsed.name not in SMALL:
        raise SettingsError(f"no small network {parsed.name!r}{nearest(parsed.name, SMALL)}")


def build(scale: Scale, parsed: Reference, num_classes: int | None) -> Built:
    """Build the network with random weights, for 10 classes by default."""
    model = SMALL[parsed.name](num_classes=10 if num_classes is None else num_classes, scale=scale)
    model = model.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    return Built(model, Preprocessing(scale.mean, scale.std, size=scale.shape[1]))


SOURCE = NetworkSource(check, partial(build, GREY), trains=True)
