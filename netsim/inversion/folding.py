"""The copy of a network that the engine evaluates: BatchNorm folded into convolutions, channels last, in a precision.

A copy is made in four steps: BatchNorms are folded, layers are stored channels last, a stem that oneDNN differentiates
slowly is replaced (float32 on CPUs), and layers are converted to a half precision (otherwise). The first two are undone
where they change the network or make it fail, so every network can be inverted.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from netsim.errors import first_line
from netsim.inversion.precision import Precision
from netsim.networks import Network, sharing_copy
from netsim.networks.memory import is_out_of_memory

logger = logging.getLogger(__name__)


def prepared_body(network: Network, example: Tensor, precision: Precision) -> nn.Module:
    """Copy the body of a network for fast evaluation: folded, channels last, in `precision`.

    The network is not changed. Weights that need no conversion are shared with it.

    Parameters
    ----------
    example
        Images (n, C, H, W) in [0, 1] to check the copy on, on the device of the network.

    Returns
    -------
    Module that maps normalised images (n, C, H, W) to representations (n, d).
    """
    body = _store_channels_last(_fold_norms(network, example), network, example)
    if precision.tensors != torch.float32:
        body = _convert(body, precision)
    elif example.device.type == "cpu":
        body = _replace_stem(body)
    body.eval()  # returns None where a user's train() does
    return body.requires_grad_(False)


# --- BatchNorm ---


def _fold_norms(network: Network, example: Tensor) -> nn.Module:
    """Return a copy of the body with BatchNorms folded into the preceding convolutions, or a plain copy if inexact.

    Which convolution precedes a BatchNorm is observed, not derived from names, so no architecture needs code of its
    own. Whether the convolution's output is used elsewhere, too, cannot be observed; the representations of the folded
    copy then differ, and it is discarded.
    """
    body = sharing_copy(network.body)
    normalised = network.normalised(example.to(network.mean))
    with torch.no_grad():
        expected = network.body(normalised)
        for conv_path, norm_path in _convolutions_before_norms(body, normalised):
            conv, norm = body.get_submodule(conv_path), body.get_submodule(norm_path)
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            fused = fuse_conv_bn_eval(conv, norm)
            body = _replace(_replace(body, conv_path, fused), norm_path, nn.Identity())
        rounding = 1e-4 if expected.dtype == torch.float32 else 1e-10
        try:
            change = float(torch.linalg.vector_norm(body(normalised) - expected))
        except AttributeError:  # the network reads an attribute of a BatchNorm, which nn.Identity lacks
            change = math.inf
        if change <= rounding * float(torch.linalg.vector_norm(expected)):
            return body
    logger.info("%s: inverting without folding BatchNorm, which would change representations", network.name)
    return sharing_copy(network.body)


def _convolutions_before_norms(body: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Return paths of each convolution and the BatchNorm that gets its unmodified output, where each runs once."""
    outputs: dict[int, tuple[str, Tensor, int]] = {}  # keeps the tensors alive, so that no id is used twice
    pairs: list[tuple[str, str]] = []
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
            if output is inputs[0] and inputs[0]._version == version:  # no in-place activation in between
                pairs.append((conv, path))

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
    norms = Counter(conv for conv, _ in pairs)
    return [(conv, norm) for conv, norm in pairs if calls[conv] == calls[norm] == norms[conv] == 1]


# --- Memory layout ---


def _store_channels_last(body: nn.Module, network: Network, example: Tensor) -> nn.Module:
    """Store layers channels last, the fastest layout of convolutions, unless the network fails with it.

    A network fails, for example, if it flattens feature maps with `view`.
    """
    try:
        with torch.no_grad():
            _in_format(body, torch.channels_last)(network.normalised(example.to(network.mean)))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        logger.info("%s: inverting without channels-last layout (%s)", network.name, first_line(error))
    else:
        return body
    for path, norm in list(_in_format(body, torch.contiguous_format).named_modules()):
        if type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
            body = _replace(body, path, _ScaleAndShift(norm))
    return body


def _in_format(body: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Convert the tensors of four dimensions in place. `Module.to` fails for tensors of five, as in nn.Conv3d."""
    return body._apply(lambda tensor: tensor.to(memory_format=layout) if tensor.dim() == 4 else tensor)


class _ScaleAndShift(nn.Module):
    """A BatchNorm in evaluation mode, with a correct gradient on CPUs.

    The gradient of torch's own (2.14) is wrong for one contiguous image if the cotangent has other strides.
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


# --- The stem ---


def _replace_stem(body: nn.Module) -> nn.Module:
    """Replace convolutions that `QuickStem` supports."""
    for path, conv in list(body.named_modules()):
        if type(conv) is nn.Conv2d and QuickStem.supports(conv) and not _has_hooks(conv):
            body = _replace(body, path, QuickStem(conv))
    return body


class QuickStem(nn.Module):
    """A convolution with few input channels, stride 2 and kernel 5 x 5 or larger, whose gradient is faster on CPUs.

    oneDNN computes the gradient with respect to the image as a convolution with three output channels, at a quarter of
    the speed of other layers. The same sums are a convolution of stride 1 whose outputs are the four phases of the
    image (even and odd rows and columns). These have four times as many channels, padded with zeros to a multiple of 8.
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
    def supports(conv: nn.Conv2d) -> bool:
        """Return True for convolutions of at most 4 channels, stride 2, and a centred odd kernel of 5 x 5 or more."""
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
        """Compute the convolution of `images` (n, C, H, W)."""
        return _QuickStemGradient.apply(images, self.conv, self.weight)


class _QuickStemGradient(torch.autograd.Function):
    """The convolution of a `QuickStem`, and its gradient with respect to the images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, conv: nn.Conv2d, weight: Tensor) -> Tensor:
        ctx.weight, ctx.images = weight, images.shape
        return conv(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        _, channels, height, width = ctx.images
        margin = ctx.weight.shape[-1]  # rows and columns of the padded image in front of the image itself
        phases = nn.functional.conv2d(gradient, ctx.weight, padding=margin - 1)[:, : 4 * channels]
        padded = nn.functional.pixel_shuffle(phases, 2)
        return padded[..., margin : margin + height, margin : margin + width], None, None


# --- Precision ---


def _convert(body: nn.Module, precision: Precision) -> nn.Module:
    """Convert layers to a half precision, and grouped convolutions to theirs."""
    half, grouped = precision.tensors, precision.grouped_tensors
    body = body.to(half)
    if grouped != half:
        for path, conv in list(body.named_modules()):
            if isinstance(conv, nn.Conv2d) and conv.groups > 1:
                body = _replace(body, path, _CastAround(conv.to(grouped), inside=grouped, outside=half))
    return _CastInput(body, half)


class _CastInput(nn.Module):
    """A body in another precision than the network. Images are normalised in the network's, then converted."""

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.dtype = body, dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images.to(self.dtype))


class _CastAround(nn.Module):
    """A layer in another precision than its neighbours."""

    def __init__(self, layer: nn.Module, *, inside: torch.dtype, outside: torch.dtype) -> None:
        super().__init__()
        self.layer, self.inside, self.outside = layer, inside, outside

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(self.inside)).to(self.outside)


def _has_hooks(module: nn.Module) -> bool:
    """Return True if user code observes or changes what goes into or comes out of `module`."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _replace(body: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """Replace the layer at `path` in place, and return the body; an empty path is the body itself."""
    if not path:
        return layer
    parent, _, child = path.rpartition(".")
    setattr(body.get_submodule(parent), child, layer)
    return body
