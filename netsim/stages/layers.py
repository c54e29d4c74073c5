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
from netsim.stages import inputs
from netsim.stages.work import StageResult
from netsim.store import provenance
from netsim.store.metadata import Metadata
from netsim.store.run import Run


def layer_spec(run: Run, networks: Sequence[str], patterns: Sequence[str], activations: str) -> LayerSpec:
    """Choose layers by patterns (`layer?`, `features.*.conv`) of the names in `named_modules()`, in network order.

    Raises
    ------
    SettingsError
        If a network is not in the run, a pattern matches no layer of either network, or `activations` is neither
        "pooled" nor "flattened".
    """
    if activations not in ("pooled", "flattened"):
        close = nearest(activations, ("pooled", "flattened"))
        raise SettingsError(f"activations must be pooled or flattened, got {activations!r}{close}")
    if len(networks) != 2:
        raise SettingsError(f"networks must be two, got {len(networks)}. Give one twice to compare its own layers")
    names = run.settings.names
    for name in networks:
        if name not in names:
            raise SettingsError(f"no network {name!r} in this run{nearest(name, names)}")
    known = {name: [layer for layer, _ in inputs.network(run, name).body.named_modules() if layer] for name in networks}
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layers in known.values() for layer in layers):
            every = sorted({layer for layers in known.values() for layer in layers})
            raise SettingsError(f"no layer matches {pattern!r}{nearest(pattern, every)}")
    chosen = {
        name: tuple(layer for layer in layers if any(fnmatchcase(layer, pattern) for pattern in patterns))
        for name, layers in known.items()
    }
    for name, layers in chosen.items():
        if not layers:
            raise SettingsError(f"no layer of {name} matches {' or '.join(patterns)}; it has {', '.join(known[name])}")
    first, second = networks
    return LayerSpec((first, second), (chosen[first], chosen[second]), activations)  # type: ignore[arg-type]


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute HSIC_1 of every two layers on one shard of a set; `name` is `<key of the spec>/<set>`."""
    key, _, set_name = name.partition("/")
    spec = find_spec(run, key)
    images, source = inputs.set_images(run, set_name, shard)
    grams = [
        gram
        for network, layers in zip(spec.networks, spec.layers, strict=True)
        for gram in layer_grams(inputs.network(run, network), images, layers, spec.activations)
    ]
    stacked = np.stack(grams)
    buffer = io.BytesIO()
    np.savez(buffer, hsic=hsic_unbiased(stacked), magnitudes=magnitude(stacked))
    weights = {network: provenance.weights_hash(run, network) for network in spec.networks}
    files = {layer_file(name, shard): buffer.getvalue()}
    metadata = Metadata(weights=weights, made_from=provenance.made_from([source.content]))
    return StageResult(files=files, metadata=metadata)


def layer_grams(network: Network, images: Tensor, layers: Sequence[str], activations: Activations) -> list[np.ndarray]:
    """Compute the centred linear Gram matrix (n, n), float32, of each layer's activations for images (n, C, H, W).

    Of a layer that runs more than once, the last activations count. One layer's activations are held at a time.

    Raises
    ------
    NetworkError
        If a layer did not run, or its output is no tensor, has other rows than images, or is not finite.
    """
    grams: dict[str, np.ndarray] = {}

    def keep(layer: str, output: Any) -> None:
        where = f"the output of layer {layer} of {network.name}"
        if not isinstance(output, Tensor):
            raise NetworkError(f"{where} must be a tensor, got {type(output).__name__}")
        if len(output) != len(images):
            raise NetworkError(f"{where} must have {len(images)} rows, one per image, got {len(output)}")
        rows = flat_rows(output, activations)
        if not torch.isfinite(rows).all():
            raise NetworkError(f"{where} must be finite")
        rows = rows - rows.mean(dim=0)
        grams[layer] = (rows @ rows.T).cpu().numpy()

    with _watching(network.body, layers, keep), torch.no_grad():
        network.represent(images.to(inputs.device()))
    for layer in layers:
        if layer not in grams:
            raise NetworkError(f"layer {layer} of {network.name} does not run in a forward pass; choose another")
    return [grams[layer] for layer in layers]


def flat_rows(output: Tensor, activations: Activations) -> Tensor:
    """Flatten activations (n, C, H, W), (n, tokens, C) or (n, d) to float32 rows: all values, or means over places.

    Of square maps (n, H, H, C), as Swin and ConvNeXt have them inside, the last dimension is that of channels.
    """
    if activations == "pooled" and output.ndim == 4:
        _, first, second, last = output.shape
        output = output.mean(dim=(1, 2) if first == second != last else (2, 3))
    elif activations == "pooled" and output.ndim == 3:
        output = output.mean(dim=1)
    return output.flatten(1).float()


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
