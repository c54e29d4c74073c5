"""Which axis of a layer's output is that of images, and which that of channels. n = images.

Shapes alone do not tell: (16, 16, 32) may be images of 16 tokens or 16 tokens of images, and (n, 32, 64) channels of
positions or tokens of channels. So the network is asked: the axis of images grows with their number and follows their
order, and axes of positions grow with their size. Where a network takes one size only, channels are those of the layer
that computed them. An output that none of this decides is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from netsim.networks import Network

# Relative difference of two outputs that are equal up to rounding: other batches run other kernels.
ROUNDING = 1e-3


class Axes(NamedTuple):
    """The axis of images and that of channels; all others are positions."""

    images: int
    channels: int


def usual_axes(dimensions: int) -> Axes:
    """Return the axes of maps (n, C, H, W), of tokens (n, tokens, C), and of features (n, d)."""
    return Axes(0, 1 if dimensions > 3 else dimensions - 1)


class Refused(NamedTuple):
    """Reason why the axes of a layer's output are unknown, as the end of a sentence about it."""

    reason: str


class FoundAxes(NamedTuple):
    """Axes of the layers of a network that can be compared, those that are unusual, and why others are refused."""

    known: dict[str, Axes]
    unusual: dict[str, tuple[int, int]]
    refused: dict[str, str]


def find_axes(network: Network, images: Tensor, layers: Sequence[str], *, pooled: bool) -> FoundAxes:
    """Find the axes of each layer's output.

    Parameters
    ----------
    network
        A network without batch effects.
    images
        At least three images (n, C, H, W) in [0, 1]; the first three are used.
    layers
        Names as in `named_modules()`.
    pooled
        Find channels too; otherwise only the axis of images.
    """
    order, three, sizes = [2, 0, 1], images[:3], [2 * side for side in images.shape[2:]]
    runs = _Runs(
        two=_outputs(network, three[:2], layers),
        three=_outputs(network, three, layers),
        reordered=_outputs(network, three[order], layers),
        larger=_outputs(network, interpolate(three[:2], sizes), layers, may_fail=True),
        order=order,
    )
    axes = {layer: runs.axes(layer, pooled=pooled) for layer in layers}
    known = {layer: answer for layer, answer in axes.items() if isinstance(answer, Axes)}
    unusual = {layer: (*pair,) for layer, pair in known.items() if pair != runs.usual(layer)}
    refused = {layer: answer.reason for layer, answer in axes.items() if isinstance(answer, Refused)}
    return FoundAxes(known, unusual, refused)


def tensor_of(output: Any) -> Tensor | Refused:
    """Return the one tensor in a layer's output, which may be in a tuple, a mapping or a dataclass."""
    tensors = list(_tensors(output))
    if len(tensors) == 1:
        return tensors[0]
    return Refused(f"must have one tensor, got {len(tensors)} in a {type(output).__name__}")


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)
    elif is_dataclass(output):
        for field in fields(output):
            yield from _tensors(getattr(output, field.name))


class _Output(NamedTuple):
    """Output of a layer, and the number of channels that the last layer with weights computed for it."""

    value: Any
    channels: frozenset[int]


class _Runs(NamedTuple):
    """Outputs of layers for two images, for three, for these in another order, and for two that are larger."""

    two: Mapping[str, _Output]
    three: Mapping[str, _Output]
    reordered: Mapping[str, _Output]
    larger: Mapping[str, _Output]
    order: list[int]

    def usual(self, layer: str) -> Axes:
        """Return the usual axes of one layer's output."""
        output = tensor_of(self.three[layer].value)
        assert isinstance(output, Tensor)
        return usual_axes(output.ndim)

    def axes(self, layer: str, *, pooled: bool) -> Axes | Refused:
        """Find the axes of one layer's output."""
        if layer not in self.three:
            return Refused("is missing, because the layer does not run in a forward pass")
        two, three, reordered = (tensor_of(run[layer].value) for run in (self.two, self.three, self.reordered))
        if isinstance(three, Refused) or isinstance(two, Refused) or isinstance(reordered, Refused):
            return three if isinstance(three, Refused) else Refused("must be of the same kind in every forward pass")
        images = _axis_of_images(two, three)
        if images is None:
            return Refused(f"must have an axis of images, got shape {_shape(two)} for 2 and {_shape(three)} for 3")
        if not _close(three.movedim(images, 0)[self.order], reordered.movedim(images, 0)):
            return Refused("must have rows that follow the order of images, got others")
        channels = self._axis_of_channels(layer, three, images) if pooled else usual_axes(three.ndim).channels
        if channels is None:
            return Refused(
                f"must have channels that can be told from positions, got shape {_shape(three)} for 3 images"
            )
        return Axes(images, channels)

    def _axis_of_channels(self, layer: str, three: Tensor, images: int) -> int | None:
        """Return the axis that does not grow with images, that has the channels computed, or that is not of size 1."""
        rest = [axis for axis in range(three.ndim) if axis != images]
        if len(rest) == 1:
            return rest[0]
        larger = tensor_of(self.larger[layer].value) if layer in self.larger else None
        if isinstance(larger, Tensor) and larger.ndim == three.ndim:
            rest = [axis for axis in rest if larger.shape[axis] == three.shape[axis]]
        computed = [axis for axis in rest if three.shape[axis] in self.three[layer].channels]
        wide = [axis for axis in rest if three.shape[axis] > 1]
        return next((axes[0] for axes in (rest, computed, wide) if len(axes) == 1), None)


def _axis_of_images(two: Tensor, three: Tensor) -> int | None:
    """Return the one axis that has as many entries as there are images."""
    if two.ndim != three.ndim:
        return None
    changed = [axis for axis, sizes in enumerate(zip(two.shape, three.shape, strict=True)) if sizes[0] != sizes[1]]
    return changed[0] if len(changed) == 1 and (two.shape[changed[0]], three.shape[changed[0]]) == (2, 3) else None


def _close(a: Tensor, b: Tensor) -> bool:
    """Return True if equal up to rounding, relative to the largest value."""
    if a.shape != b.shape:
        return False
    return torch.allclose(a.float(), b.float(), rtol=ROUNDING, atol=ROUNDING * _largest(b), equal_nan=True)


def _largest(tensor: Tensor) -> float:
    return float(tensor.float().nan_to_num().abs().max()) if tensor.numel() else 0.0


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _outputs(network: Network, images: Tensor, layers: Sequence[str], *, may_fail: bool = False) -> dict[str, _Output]:
    """Run a network; return the last output of each layer that ran, with the channels it was computed with."""
    watcher = _Watcher()
    with watcher.watching(network.body, layers), torch.no_grad(), suppress(*([Exception] if may_fail else [])):
        network.represent(images)
    return watcher.outputs


class _Watcher:
    """Observes which layers of a network run, and what the last one with weights computed before each output."""

    def __init__(self) -> None:
        self.outputs: dict[str, _Output] = {}
        self._channels: frozenset[int] = frozenset()
        self._runs = 0

    @contextmanager
    def watching(self, body: nn.Module, layers: Sequence[str]) -> Iterator[None]:
        """Observe the forward passes of a network inside the context."""
        modules = dict(body.named_modules())
        leaves = [module for module in modules.values() if _weights(module) and not any(module.children())]
        handles = [leaf.register_forward_hook(self._leaf_ran) for leaf in leaves]
        for layer in layers:
            started: list[int] = []
            handles += [
                modules[layer].register_forward_pre_hook(lambda *_, started=started: started.append(self._runs)),
                modules[layer].register_forward_hook(partial(self._layer_ran, layer, started)),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leaf_ran(self, leaf: nn.Module, _inputs: Any, _output: Any) -> None:
        self._channels, self._runs = _channels(leaf), self._runs + 1

    def _layer_ran(self, layer: str, started: list[int], module: nn.Module, _inputs: Any, output: Any) -> None:
        fused = self._runs == started.pop() and _weights(module, recurse=True)  # its parts did not run as modules
        self.outputs[layer] = _Output(output, _channels(module) if fused else self._channels)


def _weights(module: nn.Module, *, recurse: bool = False) -> bool:
    return next(module.parameters(recurse), None) is not None


def _channels(module: nn.Module) -> frozenset[int]:
    """Return the number of channels that a module states, or all that its weights may compute."""
    for name in ("out_features", "out_channels"):
        if isinstance(getattr(module, name, None), int):
            return frozenset({getattr(module, name)})
    return frozenset(weight.shape[0] for weight in module.parameters() if weight.ndim)
