"""Layers of two networks against each other, naturally and after inversion. n = images of a shard, L layers, G shards.

Inside a network activations are wide: 800,000 numbers an image where a ResNet begins. So a shard is looked at once,
each layer leaves its Gram matrix (n, n), and CKA is that of blocks (netsim/similarity/blocked.py), unbiased, with the jackknife
over shards; as in Nguyen et al. 2021 (arXiv:2010.15327). Kept is HSIC_1 of every two layers, for each shard:

    layers/<key>/spec.json            which networks and layers, and whether activations are pooled or flattened
    layers/<key>/<set>/<shard>.npz    hsic (L, L), magnitudes (L,): the first network's layers, then the second's

Not part of a sweep's settings, as other measures are not: the images are in the store, so it can be asked for any time.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from netsim import stages
from netsim.errors import NetworkError, SettingsError, StoreError, nearest
from netsim.networks import Network
from netsim.similarity.blocked import cka_of_blocks, hsic_unbiased, magnitude
from netsim.similarity.uncertainty import jackknife_se
from netsim.stages import Stage, Work
from netsim.store import provenance
from netsim.store.layout import NATURAL, inverted
from netsim.store.run import Run
from netsim.store.stages import Units

Activations = Literal["pooled", "flattened"]


@dataclass(frozen=True)
class LayerSpec:
    """What is compared: layers of a network (rows) with layers of another, or the same, network (columns)."""

    networks: tuple[str, str]
    layers: tuple[tuple[str, ...], tuple[str, ...]]
    activations: Activations

    @property
    def key(self) -> str:
        """12 hex digits that name it in the store."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def sets(self) -> list[str]:
        return [NATURAL, *dict.fromkeys(inverted(name) for name in self.networks)]


def layer_spec(run: Run, networks: Sequence[str], patterns: Sequence[str], activations: str) -> LayerSpec:
    """The layers of each network whose name fits a pattern (`layer?`, `features.*.conv`), in the order of the network.

    Names are those of `named_modules()`. Raises SettingsError for a network that is not in the run, a pattern that fits
    no layer of either network, or activations that are neither pooled nor flattened.
    """
    if activations not in ("pooled", "flattened"):
        raise SettingsError(f"activations {activations!r}{nearest(activations, ('pooled', 'flattened'))}")
    if len(networks) != 2:
        raise SettingsError(f"{len(networks)} networks; give two, or one twice for its layers against each other")
    names = run.settings.names
    for name in networks:
        if name not in names:
            raise SettingsError(f"no network {name!r} in this run{nearest(name, names)}")
    known = {name: [layer for layer, _ in stages.network(run, name).body.named_modules() if layer] for name in networks}
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layers in known.values() for layer in layers):
            every = sorted({layer for layers in known.values() for layer in layers})
            raise SettingsError(f"no layer fits {pattern!r}{nearest(pattern, every)}")
    chosen = {
        name: tuple(layer for layer in layers if any(fnmatchcase(layer, pattern) for pattern in patterns))
        for name, layers in known.items()
    }
    for name, layers in chosen.items():
        if not layers:
            raise SettingsError(f"no layer of {name} fits {' or '.join(patterns)}; it has {', '.join(known[name])}")
    first, second = networks
    return LayerSpec((first, second), (chosen[first], chosen[second]), activations)  # type: ignore[arg-type]


# Work ----------------------------------------------------------------------------------------------------------------


def layer_stage(spec: LayerSpec) -> Stage:
    """The work of a spec: every shard of its sets."""

    def units(settings: Any) -> dict[str, int]:
        return {f"{spec.key}/{name}": settings.pairs.shards for name in spec.sets}

    return Stage(
        Units("layers", "Shards looked at, layer by layer", units, gpu=True, pairs=True), lambda run: [], layers_shard
    )


def keep_spec(run: Run, spec: LayerSpec) -> None:
    """Put the spec where workers find it."""
    run.files.put(_spec_path(spec.key), json.dumps(asdict(spec), indent=2).encode())


def find_spec(run: Run, key: str) -> LayerSpec:
    values = json.loads(run.files.get(_spec_path(key)))
    first, second = (tuple(layers) for layers in values["layers"])
    return LayerSpec(tuple(values["networks"]), (first, second), values["activations"])


def _spec_path(key: str) -> str:
    return f"layers/{key}/spec.json"


def layers_shard(run: Run, name: str, shard: int) -> Work:
    """HSIC_1 of every two layers on a shard of a set: `name` is `<key of the spec>/<set>`."""
    key, _, set_name = name.partition("/")
    spec = find_spec(run, key)
    images, source = stages.set_images(run, set_name, shard)
    grams = [
        gram
        for network, layers in zip(spec.networks, spec.layers, strict=True)
        for gram in layer_grams(stages.network(run, network), images, layers, spec.activations)
    ]
    stacked = np.stack(grams)
    buffer = io.BytesIO()
    np.savez(buffer, hsic=hsic_unbiased(stacked), magnitudes=magnitude(stacked))
    weights = {network: provenance.weights_hash(run, network) for network in spec.networks}
    files = {_file_path(name, shard): buffer.getvalue()}
    return Work(files=files, facts={"weights": weights, "made_from": provenance.made_from([source.content])})


def _file_path(name: str, shard: int) -> str:
    return f"layers/{name}/{shard:05d}.npz"


def layer_grams(network: Network, images: Tensor, layers: Sequence[str], activations: Activations) -> list[np.ndarray]:
    """Centred linear Gram matrices (n, n), float32, of what each layer gives for images (n, C, H, W).

    A layer that runs more than once counts as it ran last. Only one layer's activations are held at a time.
    Raises NetworkError for a layer that did not run, gives no tensor, or values that are not finite.
    """
    found: dict[str, np.ndarray] = {}

    def keep(layer: str, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise NetworkError(f"layer {layer} of {network.name} gives {type(output).__name__}, not a tensor")
        if len(output) != len(images):
            raise NetworkError(f"layer {layer} of {network.name} gives {len(output)} rows for {len(images)} images")
        rows = flat_rows(output, activations)
        if not torch.isfinite(rows).all():
            raise NetworkError(f"layer {layer} of {network.name} gives values that are not finite")
        rows = rows - rows.mean(dim=0)
        found[layer] = (rows @ rows.T).cpu().numpy()

    with _watching(network.body, layers, keep), torch.no_grad():
        network.represent(images.to(stages.device()))
    for layer in layers:
        if layer not in found:
            raise NetworkError(f"layer {layer} of {network.name} does not run when it looks at an image")
    return [found[layer] for layer in layers]


def flat_rows(output: Tensor, activations: Activations) -> Tensor:
    """Activations (n, C, H, W), (n, tokens, C) or (n, d) as float32 rows: all of them, or their mean over places.

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


# What was found ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerSimilarity:
    """Unbiased CKA of layers on one set, with its standard error: (layers of the first, layers of the second)."""

    cka: np.ndarray
    se: np.ndarray


def load_layers(run: Run, spec: LayerSpec) -> dict[str, LayerSimilarity]:
    """By set: natural, inverted through either network. Raises StoreError if a shard is missing or damaged."""
    return {name: _load(run, spec, name) for name in spec.sets}


def _load(run: Run, spec: LayerSpec, set_name: str) -> LayerSimilarity:
    name, hsic, magnitudes = f"{spec.key}/{set_name}", [], []
    shards = range(run.settings.pairs.shards)
    known = provenance.source_records(run, (("layers", name, shard) for shard in shards))
    for shard, record in zip(shards, run.records("layers", name, shards), strict=True):
        provenance.check_weights(run, record)
        provenance.check_origin(run, record, known)
        path = _file_path(name, shard)
        try:
            with np.load(io.BytesIO(run.read_file(record, path)), allow_pickle=False) as stored:
                hsic.append(stored["hsic"])
                magnitudes.append(stored["magnitudes"])
        except (ValueError, KeyError, OSError) as error:
            raise StoreError(f"{path} in {run.url} is damaged ({error}); {run.mend}") from None
    weights = np.full(len(hsic), float(run.settings.pairs.shard_size))
    whole, left_out = cka_of_blocks(np.stack(hsic), np.stack(magnitudes), weights)
    rows, columns = slice(len(spec.layers[0])), slice(len(spec.layers[0]), None)
    return LayerSimilarity(cka=whole[rows, columns], se=jackknife_se(left_out[:, rows, columns]))
