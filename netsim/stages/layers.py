"""layers: HSIC of the layers of two networks, on each shard of a set."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netsim.errors import NetworkError, SettingsError, nearest
from netsim.networks import Network
from netsim.results.layers import Activations, LayerSpec, find_spec, layer_file
from netsim.similarity.blocked import hsic_unbiased, magnitude
from netsim.similarity.rows import ULPS
from netsim.stages import inputs
from netsim.stages.layer_axes import Axes, FoundAxes, Refused, find_axes, tensor_of, usual_axes
from netsim.stages.work import StageResult
from netsim.store import provenance
from netsim.store.layout import NATURAL
from netsim.store.metadata import Metadata
from netsim.store.run import Run


def layer_spec(run: Run, networks: Sequence[str], patterns: Sequence[str], activations: str) -> LayerSpec:
    """Choose layers by patterns (`layer?`, `features.*.conv`) of the names in `named_modules()`, in network order.

    Raises
    ------
    SettingsError
        If a network is not in the run, a pattern matches no layer of either network, or `activations` is neither
        "pooled" nor "flattened".
    NetworkError
        If none of the layers of a network can be compared. Otherwise `LayerSpec.refused` has those that cannot.
    """
    if activations not in ("pooled", "flattened"):
        close = nearest(activations, ("pooled", "flattened"))
        raise SettingsError(f"activations must be pooled or flattened, got {activations!r}{close}")
    if len(networks) != 2:
        raise SettingsError(f"networks must be two, got {len(networks)}. Give one twice to compare its own layers")
    first, second = (run.sweep.stored_name(name) for name in networks)
    networks = (first, second)
    chosen = _matching_layers(run, networks, patterns)
    axes = {name: _axes(run, name, layers, activations) for name, layers in chosen.items()}
    return LayerSpec(
        (first, second),
        (tuple(axes[first].known), tuple(axes[second].known)),
        "pooled" if activations == "pooled" else "flattened",
        (axes[first].unusual, axes[second].unusual),
        (axes[first].refused, axes[second].refused),
    )


def _matching_layers(run: Run, networks: Sequence[str], patterns: Sequence[str]) -> dict[str, list[str]]:
    """List the layers of each network that match a pattern; each pattern and each network must have one."""
    known = {name: [layer for layer, _ in inputs.network(run, name).body.named_modules() if layer] for name in networks}
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layers in known.values() for layer in layers):
            every = {layer for layers in known.values() for layer in layers}
            raise SettingsError(f"no layer matches {pattern!r}{nearest(pattern, every)}")
    chosen = {
        name: [layer for layer in layers if any(fnmatchcase(layer, pattern) for pattern in patterns)]
        for name, layers in known.items()
    }
    for name, layers in chosen.items():
        if not layers:
            raise SettingsError(f"no layer of {name} matches {' or '.join(patterns)}; it has {', '.join(known[name])}")
    return chosen


def _axes(run: Run, name: str, layers: Sequence[str], activations: str) -> FoundAxes:
    """Find the axes of layers on the first natural images, and check that at least one layer can be compared."""
    images, _ = inputs.set_images(run, NATURAL, 0)
    network = inputs.network(run, name)
    axes = find_axes(network, images.to(inputs.device()), layers, pooled=activations == "pooled")
    if not axes.known:
        raise _refusal(network, axes.refused, activations)
    return axes


def _refusal(network: Network, refused: Mapping[str, str], activations: str) -> NetworkError:
    layer, reason = next(iter(refused.items()))
    way_out = "choose another layer" + (", or --activations flattened" if activations == "pooled" else "")
    return NetworkError(f"the output of layer {layer} of {network.name} {reason}; {way_out}")


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute HSIC_1 of every two layers on one shard of a set; `name` is `<key of the spec>/<set>`."""
    key, _, set_name = name.partition("/")
    spec = find_spec(run, key)
    images, source = inputs.set_images(run, set_name, shard)
    grams = [
        gram
        for network, layers, axes in zip(spec.networks, spec.layers, spec.axes, strict=True)
        for gram in layer_grams(inputs.network(run, network), images, layers, spec.activations, unusual_axes=axes)
    ]
    stacked = np.stack(grams)
    buffer = io.BytesIO()
    np.savez(buffer, hsic=hsic_unbiased(stacked), magnitudes=magnitude(stacked))
    weights = {network: provenance.weights_hash(run, network) for network in spec.networks}
    files = {layer_file(name, shard): buffer.getvalue()}
    metadata = Metadata(weights=weights, made_from=provenance.made_from(run, ("layers", name, shard), [source]))
    return StageResult(files=files, metadata=metadata)


def layer_grams(
    network: Network,
    images: Tensor,
    layers: Sequence[str],
    activations: Activations,
    *,
    unusual_axes: Mapping[str, tuple[int, int]] | None = None,
) -> list[np.ndarray]:
    """Compute the centred linear Gram matrix (n, n), float32, of each layer's activations for images (n, C, H, W).

    Of a layer that runs more than once, the last activations count. One layer's activations are held at a time.

    Parameters
    ----------
    unusual_axes
        Axes of images and channels in the outputs of the layers that have others than `usual_axes`. Without it, those
        of all layers are found by running the network.

    Raises
    ------
    NetworkError
        If a layer did not run, its axes are unknown, or its output is no tensor, has other rows than images, or is not
        finite.
    """
    images = images.to(inputs.device())
    if unusual_axes is None:
        axes = find_axes(network, images, layers, pooled=activations == "pooled")
        if axes.refused:
            raise _refusal(network, axes.refused, activations)
        unusual_axes = axes.unusual
    grams: dict[str, np.ndarray] = {}

    def keep(layer: str, value: Any) -> None:
        where = f"the output of layer {layer} of {network.name}"
        output = tensor_of(value)
        if isinstance(output, Refused):
            raise NetworkError(f"{where} {output.reason}")
        image_axis, channel_axis = unusual_axes.get(layer, usual_axes(output.ndim))
        rows = flat_rows(output, activations, Axes(image_axis, channel_axis))
        if len(rows) != len(images):
            raise NetworkError(f"{where} must have {len(images)} rows, one per image, got {len(rows)}")
        if not torch.isfinite(rows).all():
            raise NetworkError(f"{where} must be finite")
        rows = _centred(rows, torch.finfo(output.dtype).eps if output.is_floating_point() else 0.0)
        grams[layer] = (rows @ rows.T).cpu().numpy()

    with _watching(network.body, layers, keep), torch.no_grad():
        network.represent(images)
    for layer in layers:
        if layer not in grams:
            raise NetworkError(f"layer {layer} of {network.name} does not run in a forward pass; choose another")
    return [grams[layer] for layer in layers]


def _centred(rows: Tensor, precision: float) -> Tensor:
    """Return rows minus their mean; 0 if they vary by no more than the rounding of numbers with this spacing."""
    spread, size = (rows - rows[0]).abs().amax(dim=0), rows.abs().amax(dim=0)
    return torch.zeros_like(rows) if bool((spread <= ULPS * precision * size).all()) else rows - rows.mean(dim=0)


def flat_rows(output: Tensor, activations: Activations, axes: Axes) -> Tensor:
    """Flatten activations to float32 rows, one per image: all values, or means over positions."""
    if activations == "pooled":
        positions = [axis for axis in range(output.ndim) if axis not in axes]
        output = output.mean(dim=positions, keepdim=True) if positions else output
    return output.movedim(axes.images, 0).flatten(1).float()


@contextmanager
def _watching(body: nn.Module, layers: Sequence[str], keep: Any) -> Iterator[None]:
    modules: Mapping[str, nn.Module] = dict(body.named_modules())
    handles = [
        modules[layer].register_forward_hook(lambda _module, _input, output, layer=layer: keep(layer, output))
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
