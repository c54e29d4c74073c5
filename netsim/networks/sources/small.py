"""Nine small networks for 28x28 grey images: torchvision's own classes, scaled down so that a laptop can invert all.

They are the families of Jones et al. 2022 (UAI, PMLR 180:928-937): DenseNet, MobileNetV2, ResNeXt, ResNet-18 and -50,
ShuffleNetV2, VGG and two wide ResNets. What makes a family is kept: dense connections, inverted residuals, grouped
convolutions, basic or bottleneck blocks, channel shuffle, hidden linear layers, a bottleneck's width. Changed are the
number of blocks and of channels, and the stem: one input channel, 3x3. Images shrink by 4 before the first block, as in
the originals (MobileNetV2 and ShuffleNetV2: within it), so that blocks work on 7x7 pixels and cost little.

All map (n, 1, 28, 28) to (n, num_classes). How well they can be inverted depends on their training: see
`netsim.networks.training`.
"""

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models import VGG, DenseNet, MobileNetV2, ResNet, ShuffleNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import make_layers
from torchvision.ops import Conv2dNormActivation

from netsim.errors import SettingsError, nearest
from netsim.networks.preprocessing import Preprocessing
from netsim.networks.sources.base import Built, NetworkSource, Reference

INPUT_SHAPE = (1, 28, 28)
MEAN, STD = (0.286,), (0.353,)  # of Fashion-MNIST's 60,000 training images in [0, 1]


class SmallResNet(ResNet):
    """A ResNet with `divisor` times fewer channels in the stem and in every stage."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: list[int],
        *,
        divisor: int,
        num_classes: int,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        self.divisor = divisor  # before super(), which builds the stages
        super().__init__(block, layers, num_classes, groups=groups, width_per_group=width_per_group)
        self.fc = nn.Linear(512 // divisor * block.expansion, num_classes)

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        if not hasattr(self, "layer1"):  # super() has just built the stem, 64 wide, and comes to the first stage
            self.inplanes = planes // self.divisor
            self.conv1 = _stem(self.inplanes)
            self.bn1 = nn.BatchNorm2d(self.inplanes)
        return super()._make_layer(block, planes // self.divisor, blocks, stride, dilate)


def resnet18(num_classes: int = 10) -> nn.Module:
    """Basic blocks, two a stage as in the original; 8 to 64 channels."""
    return SmallResNet(BasicBlock, [2, 2, 2, 2], divisor=8, num_classes=num_classes)


def resnet50(num_classes: int = 10) -> nn.Module:
    """Bottleneck blocks, 1, 1, 2, 1 a stage for 3, 4, 6, 3; 8 to 64 channels inside, 32 to 256 outside."""
    return _bottlenecks(num_classes)


def resnext(num_classes: int = 10) -> nn.Module:
    """The same with 3x3 convolutions in 4 groups (for 32), in all twice as wide as ResNet-50's, as in 32x4d."""
    return _bottlenecks(num_classes, groups=4, width_per_group=32)


def wrn2(num_classes: int = 10) -> nn.Module:
    """The same, twice as wide inside: Wide ResNet-50-2."""
    return _bottlenecks(num_classes, width_per_group=128)


def wrn4(num_classes: int = 10) -> nn.Module:
    """The same, four times as wide inside: Wide ResNet-50-4."""
    return _bottlenecks(num_classes, width_per_group=256)


def _bottlenecks(num_classes: int, *, groups: int = 1, width_per_group: int = 64) -> nn.Module:
    return SmallResNet(
        Bottleneck,
        [1, 1, 2, 1],
        divisor=8,
        num_classes=num_classes,
        groups=groups,
        width_per_group=width_per_group,
    )


def densenet(num_classes: int = 10) -> nn.Module:
    """Three dense blocks for four, of 2, 3 and 3 layers, growing by 16 channels a layer."""
    network = DenseNet(growth_rate=16, block_config=(2, 3, 3), num_init_features=16, num_classes=num_classes)
    network.features.conv0 = _stem(16)
    return network


def mobilenet(num_classes: int = 10) -> nn.Module:
    """Five inverted residuals for 17, expanding by 4 for 6; 128 channels at the end for 1280."""
    blocks = [[1, 16, 1, 2], [4, 48, 2, 1], [4, 96, 2, 2]]  # expansion, channels, repeats, stride
    network = MobileNetV2(num_classes=num_classes, width_mult=0.5, inverted_residual_setting=blocks)
    network.features[0][0] = _stem(16)
    network.features[-1] = Conv2dNormActivation(48, 128, kernel_size=1, activation_layer=nn.ReLU6)
    network.classifier[1] = nn.Linear(128, num_classes)
    return network


def shufflenet(num_classes: int = 10) -> nn.Module:
    """Two units a stage for 4, 8 and 4; without max-pooling, because every stage halves the image again."""
    network = ShuffleNetV2([2, 2, 2], [16, 32, 64, 128, 128], num_classes=num_classes)
    network.conv1[0] = _stem(16)
    network.maxpool = nn.Identity()
    return network


class SmallVGG(VGG):
    """VGG with other linear layers: its own constructor draws 119 million weights, for nothing here."""

    def __init__(self, features: nn.Module, avgpool: nn.Module, classifier: nn.Module) -> None:
        nn.Module.__init__(self)
        self.features = features
        self.avgpool = avgpool
        self.classifier = classifier


def vgg(num_classes: int = 10) -> nn.Module:
    """Five plain 3x3 convolutions with BatchNorm for 13, then three linear layers of 128 for 4096."""
    features = make_layers([16, "M", 32, 32, "M", 64, 64], batch_norm=True)
    features[0] = _stem(16)
    classifier = nn.Sequential(
        nn.Linear(64 * 3 * 3, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(128, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(128, num_classes),
    )
    return SmallVGG(features, nn.AdaptiveAvgPool2d((3, 3)), classifier)


def _stem(channels: int) -> nn.Conv2d:
    """Without a bias: BatchNorm follows."""
    stem = nn.Conv2d(INPUT_SHAPE[0], channels, kernel_size=3, stride=2, padding=1, bias=False)
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
    if parsed.name not in SMALL:
        raise SettingsError(f"no small network {parsed.name!r}{nearest(parsed.name, SMALL)}")


def build(parsed: Reference, num_classes: int | None) -> Built:
    model = SMALL[parsed.name](num_classes=10 if num_classes is None else num_classes)
    model = model.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    return Built(model, Preprocessing(MEAN, STD, size=INPUT_SHAPE[1]))


SOURCE = NetworkSource(check, build, trains=True)
