"""The copy of a network that is evaluated: BatchNorm folded into convolutions, channels last, in its precision."""

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from netsim.inversion.memory import is_out_of_memory
from netsim.inversion.precision import Precision
from netsim.networks import Network, sharing_copy
from netsim.networks.network import first_line

logger = logging.getLogger(__name__)


def prepared_body(network: Network, example: Tensor, precision: Precision) -> nn.Module:
    """The body of the network, folded, channels last, in the precision of the precision."""
    body = _laid_out(_folded(network, example), network, example)
    if precision.dtype == precision.grouped == "float32":
        body = _with_quick_stem(body) if example.device.type == "cpu" else body
        return body.eval().requires_grad_(False)
    half, grouped = getattr(torch, precision.dtype), getattr(torch, precision.grouped)
    body = body.to(half)
    if grouped != half:
        for path, conv in list(body.named_modules()):
            if isinstance(conv, nn.Conv2d) and conv.groups > 1:
                body = _replaced(body, path, _OfOtherPrecision(conv.to(grouped), inside=grouped, outside=half))
    return _Entering(body, half).eval().requires_grad_(False)


def _laid_out(body: nn.Module, network: Network, example: Tensor) -> nn.Module:
    """Channels last, which convolutions are quickest in; but not if the network then fails, as one does that takes maps
    of features for rows of numbers with `view`.
    """
    try:
        with torch.no_grad():
            _in_format(body, torch.channels_last)(network.normalised(example.to(network.mean)))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        logger.info("%s: not stored channels last (%s)", network.name, first_line(error))
    else:
        return body
    for path, norm in list(_in_format(body, torch.contiguous_format).named_modules()):
        if type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
            body = _replaced(body, path, _ScaleAndShift(norm))
    return body


def _in_format(body: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Its tensors of four dimensions: `Module.to` knows no other."""
    return body._apply(lambda tensor: tensor.to(memory_format=layout) if tensor.dim() == 4 else tensor)


class _ScaleAndShift(nn.Module):
    """A BatchNorm in evaluation. Through its own, torch (2.14) takes a wrong gradient on CPUs of one contiguous image
    where the cotangent has other strides.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
        shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
        for name, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, values.detach()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class _Entering(nn.Module):
    """Images come in the network's dtype and are normalised in it."""

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.dtype = body, dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images.to(self.dtype))


class _OfOtherPrecision(nn.Module):
    def __init__(self, layer: nn.Module, *, inside: torch.dtype, outside: torch.dtype) -> None:
        super().__init__()
        self.layer, self.inside, self.outside = layer, inside, outside

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(self.inside)).to(self.outside)


def _folded(network: Network, example: Tensor) -> nn.Module:
    """A copy of the body whose BatchNorms are part of the convolutions before them; a plain copy if that is not exact.

    Which convolution comes before a BatchNorm is observed, not read off the names: so no architecture needs code of its
    own. Whether its output goes elsewhere too cannot be observed; then the folded copy gives other representations.
    """
    body = sharing_copy(network.body)
    normalised = network.normalised(example.to(network.mean))
    with torch.no_grad():
        expected = network.body(normalised)
        for conv_path, norm_path in _convolutions_before_norms(body, normalised):
            conv, norm = body.get_submodule(conv_path), body.get_submodule(norm_path)
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            fused = fuse_conv_bn_eval(conv, norm)
            body = _replaced(_replaced(body, conv_path, fused), norm_path, nn.Identity())
        rounding = 1e-4 if expected.dtype == torch.float32 else 1e-10
        try:
            change = float(torch.linalg.vector_norm(body(normalised) - expected))
        except AttributeError:  # of a BatchNorm that the network asks for
            change = math.inf
        if change <= rounding * float(torch.linalg.vector_norm(expected)):
            return body
    logger.info("%s: BatchNorm cannot be folded into its convolutions; inverting it unfolded", network.name)
    return sharing_copy(network.body)


def _convolutions_before_norms(body: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Paths of each convolution and the BatchNorm that was given its output, untouched; each runs once."""
    outputs: dict[int, tuple[str, Tensor, int]] = {}  # holds the tensors, or an id could come back
    found: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def after_conv(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            calls[path] += 1
            outputs[id(output)] = (path, output, output._version)

        return hook

    def before_norm(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[path] += 1
            conv, output, version = outputs.get(id(inputs[0]), ("", None, 0))
            if output is inputs[0] and inputs[0]._version == version:  # no activation has worked on it in place
                found.append((conv, path))

        return hook

    hooks = []
    for path, module in body.named_modules():
        if _has_hooks(module) or not path:
            continue
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_conv(path)))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(before_norm(path)))
    try:
        body(images)
    finally:
        for hook in hooks:
            hook.remove()
    fed = Counter(conv for conv, _ in found)
    return [(conv, norm) for conv, norm in found if calls[conv] == calls[norm] == fed[conv] == 1]


def _with_quick_stem(body: nn.Module) -> nn.Module:
    for path, conv in list(body.named_modules()):
        if type(conv) is nn.Conv2d and QuickStem.fits(conv) and not _has_hooks(conv):
            body = _replaced(body, path, QuickStem(conv))
    return body


class QuickStem(nn.Module):
    """A convolution from few channels, of stride 2 and kernel 5 x 5 or more, with a quicker gradient on CPUs.

    oneDNN takes the gradient by the image with three output channels, at a quarter of the speed of other layers. The
    same sums are a convolution of stride 1 to the four phases of the image (even and odd rows and columns), which have
    four times as many channels; zeros make them a multiple of 8.
    """

    weight: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        phases = nn.functional.pad(conv.weight, (1, 0, 1, 0))  # (out, in, 2m, 2m)
        phases = phases.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        weight = phases.flip(2, 3).transpose(0, 1)  # (4 in, out, m, m)
        weight = torch.cat([weight, weight.new_zeros(-len(weight) % 8, *weight.shape[1:])])
        self.register_buffer("weight", weight.detach().contiguous(memory_format=torch.channels_last))

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        size = conv.kernel_size[0]
        return (
            conv.in_channels <= 4
            and conv.kernel_size == (size, size)
            and size >= 5
            and size % 2 == 1
            and conv.stride == (2, 2)
            and conv.padding == (size // 2, size // 2)
            and conv.padding_mode == "zeros"
            and (conv.dilation, conv.groups) == ((1, 1), 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return _QuickStemGradient.apply(images, self.conv, self.weight)


class _QuickStemGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, conv: nn.Conv2d, weight: Tensor) -> Tensor:
        ctx.weight, ctx.images = weight, images.shape
        return conv(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        _, channels, height, width = ctx.images
        first = ctx.weight.shape[-1]  # of the padded image, what comes before the image itself
        phases = nn.functional.conv2d(gradient, ctx.weight, padding=first - 1)[:, : 4 * channels]
        return nn.functional.pixel_shuffle(phases, 2)[..., first : first + height, first : first + width], None, None


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _replaced(body: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    if not path:
        return layer
    parent, _, child = path.rpartition(".")
    setattr(body.get_submodule(parent), child, layer)
    return body
