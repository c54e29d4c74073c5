"""Nine small networks for 28x28 grey images: torchvision's own classes, scaled down, so that a laptop can invert them all.

They are the families of Jones et al. 2022 (UAI, PMLR 180:928-937): DenseNet, MobileNetV2, ResNeXt, ResNet-18 and -50,
ShuffleNetV2, VGG and two Wide ResNets. What makes a family is kept: dense connections, inverted residuals, grouped
convolutions, basic or bottleneck blocks, channel shuffle, fully connected layers, the width of the bottleneck. What is
changed: fewer and narrower blocks, one input channel, a 3x3 stem of stride 2 and no max-pooling after it. All map
(n, 1, 28, 28) to (n, num_classes).
"""

from collections.abc import Callable

from torch import nn
from torchvision.models import VGG, DenseNet, MobileNetV2, ResNet, ShuffleNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import make_layers
from torchvision.ops import Conv2dNormActivation

INPUT_SHAPE = (1, 28, 28)
MEAN, STD = (0.286,), (0.353,)  # of Fashion-MNIST's training images in [0, 1]


class SmallResNet(ResNet):
    """A ResNet with `divisor` times fewer channels in every stage."""

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: list[int], *, divisor: int, **settings) -> None:
        self.divisor = divisor  # before super(): it builds the stages
        super().__init__(block, layers, **settings)
        self.fc = nn.Linear(512 // divisor * block.expansion, self.fc.out_features)

    def _make_layer(self, block, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Sequential:
        if not hasattr(self, "layer1"):  # the stem is as wide as the first stage, and was just built 64 wide
            self.inplanes = 64 // self.divisor
            self.conv1 = _stem(self.inplanes)
            self.bn1 = nn.BatchNorm2d(self.inplanes)
        return super()._make_layer(block, planes // self.divisor, blocks, stride, dilate)


def resnet18(num_classes: int = 10) -> nn.Module:
    return SmallResNet(BasicBlock, [2, 2, 2, 2], divisor=8, num_classes=num_classes)


def resnet50(num_classes: int = 10) -> nn.Module:
    return _bottlenecks(num_classes)


def resnext(num_classes: int = 10) -> nn.Module:
    """Grouped 3x3 convolutions, twice as wide in all as ResNet-50's, like 32x4d."""
    return _bottlenecks(num_classes, groups=4, width_per_group=32)


def wrn2(num_classes: int = 10) -> nn.Module:
    return _bottlenecks(num_classes, width_per_group=128)


def wrn4(num_classes: int = 10) -> nn.Module:
    return _bottlenecks(num_classes, width_per_group=256)


def _bottlenecks(num_classes: int, **settings) -> nn.Module:
    return SmallResNet(Bottleneck, [1, 2, 2, 1], divisor=16, num_classes=num_classes, **settings)


def densenet(num_classes: int = 10) -> nn.Module:
    network = DenseNet(growth_rate=16, block_config=(2, 3, 3), num_init_features=16, num_classes=num_classes)
    network.features.conv0 = _stem(16)
    return network


def mobilenet(num_classes: int = 10) -> nn.Module:
    blocks = [[1, 16, 1, 2], [4, 48, 2, 1], [4, 96, 2, 2]]  # expansion, channels, repeats, stride
    network = MobileNetV2(num_classes=num_classes, inverted_residual_setting=blocks, width_mult=0.5)
    width = 128  # torchvision fixes 1280
    network.features[0][0] = _stem(network.features[0][0].out_channels)
    network.features[-1] = Conv2dNormActivation(48, width, kernel_size=1, activation_layer=nn.ReLU6)
    network.classifier[1] = nn.Linear(width, num_classes)
    return network


def shufflenet(num_classes: int = 10) -> nn.Module:
    network = ShuffleNetV2([2, 2, 2], [16, 32, 64, 128, 128], num_classes=num_classes)
    network.conv1[0] = _stem(16)
    network.maxpool = nn.Identity()
    return network


def vgg(num_classes: int = 10) -> nn.Module:
    """Plain 3x3 convolutions and three fully connected layers; the representation is the last hidden one."""
    network = VGG(make_layers([16, "M", 32, 32, "M", 64, 64], batch_norm=True), num_classes=num_classes)
    network.features[0] = nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1)
    network.avgpool = nn.AdaptiveAvgPool2d((3, 3))
    network.classifier = nn.Sequential(
        nn.Linear(64 * 3 * 3, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(128, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(128, num_classes),
    )
    return network


def _stem(channels: int) -> nn.Conv2d:
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
