"""small:NAME: nine small networks for 28x28 grey images, torchvision's classes scaled down so that a laptop suffices.

They are the families of Jones et al. 2022 (UAI, PMLR 180:928-937): DenseNet, MobileNetV2, ResNeXt, ResNet-18 and -50,
ShuffleNetV2, VGG and two wide ResNets. Each keeps what defines its family: dense connections, inverted residuals,
grouped convolutions, basic or bottleneck blocks, channel shuffle, hidden linear layers, the width of a bottleneck. The
numbers of blocks and of channels differ, and so does the stem: one input channel, 3x3. Images shrink by a factor of 4
before the first block, as in the originals (MobileNetV2 and ShuffleNetV2: within it), so that blocks see 7x7 pixels and
are cheap.

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

# Mean and standard deviation of Fashion-MNIST's 60,000 training images in [0, 1].
MEAN, STD = (0.286,), (0.353,)


class SmallResNet(ResNet):
    """ResNet with `divisor` times fewer channels in the stem and in every stage."""

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
        if not hasattr(self, "layer1"):  # super() has just built a stem of 64 channels, and begins with the first stage
            self.inplanes = planes // self.divisor
            self.conv1 = _stem(self.inplanes)
            self.bn1 = nn.BatchNorm2d(self.inplanes)
        return super()._make_layer(block, planes // self.divisor, blocks, stride, dilate)


def resnet18(num_classes: int = 10) -> nn.Module:
    """ResNet-18: basic blocks, two per stage as in the original; 8 to 64 channels."""
    return SmallResNet(BasicBlock, [2, 2, 2, 2], divisor=8, num_classes=num_classes)


def resnet50(num_classes: int = 10) -> nn.Module:
    """ResNet-50: 1, 1, 2, 1 bottlenecks per stage instead of 3, 4, 6, 3; 8 to 64 channels inside, 32 to 256 outside."""
    return _bottlenecks(num_classes)


def resnext(num_classes: int = 10) -> nn.Module:
    """ResNeXt-50: `resnet50` with 3x3 convolutions twice as wide, as in 32x4d, in 4 groups instead of 32."""
    return _bottlenecks(num_classes, groups=4, width_per_group=32)


def wrn2(num_classes: int = 10) -> nn.Module:
    """Wide ResNet-50-2: `resnet50`, twice as wide inside."""
    return _bottlenecks(num_classes, width_per_group=128)


def wrn4(num_classes: int = 10) -> nn.Module:
    """Wide ResNet-50-4: `resnet50`, four times as wide inside."""
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
    """DenseNet: three dense blocks instead of four, of 2, 3 and 3 layers, each adding 16 channels."""
    network = DenseNet(growth_rate=16, block_config=(2, 3, 3), num_init_features=16, num_classes=num_classes)
    network.features.conv0 = _stem(16)
    return network


def mobilenet(num_classes: int = 10) -> nn.Module:
    """MobileNetV2: five inverted residuals instead of 17, expanding by 4, not 6; 128 channels at the end, not 1280."""
    blocks = [[1, 16, 1, 2], [4, 48, 2, 1], [4, 96, 2, 2]]  # expansion, channels, repeats, stride
    network = MobileNetV2(num_classes=num_classes, width_mult=0.5, inverted_residual_setting=blocks)
    network.features[0][0] = _stem(16)
    network.features[-1] = Conv2dNormActivation(48, 128, kernel_size=1, activation_layer=nn.ReLU6)
    network.classifier[1] = nn.Linear(128, num_classes)
    return network


def shufflenet(num_classes: int = 10) -> nn.Module:
    """ShuffleNetV2: two units per stage instead of 4, 8, 4; no max-pooling, because every stage halves the image."""
    network = ShuffleNetV2([2, 2, 2], [16, 32, 64, 128, 128], num_classes=num_classes)
    network.conv1[0] = _stem(16)
    network.maxpool = nn.Identity()
    return network


class SmallVGG(VGG):
    """VGG with other linear layers, without its own constructor, which would draw 119 million weights in vain."""

    def __init__(self, features: nn.Module, avgpool: nn.Module, classifier: nn.Module) -> None:
        nn.Module.__init__(self)
        self.features = features
        self.avgpool = avgpool
        self.classifier = classifier


def vgg(num_classes: int = 10) -> nn.Module:
    """VGG: five plain 3x3 convolutions with BatchNorm instead of 13; linear layers of width 128 instead of 4096."""
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
    """Build the first convolution, without a bias, because BatchNorm follows."""
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
    """Raise SettingsError for an unknown name."""
    if parsed.name not in SMALL:
        raise SettingsError(f"no small network {parsed.name!r}{nearest(parsed.name, SMALL)}")


def build(parsed: Reference, num_classes: int | None) -> Built:
    """Build the network with random weights, for 10 classes by default."""
    model = SMALL[parsed.name](num_classes=10 if num_classes is None else num_classes)
    model = model.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    return Built(model, Preprocessing(MEAN, STD, size=INPUT_SHAPE[1]))


SOURCE = NetworkSource(check, build, trains=True)
