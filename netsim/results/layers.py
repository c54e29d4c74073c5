"""Similarity of the layers of two networks, natural and inverted. n = images of a shard, L = layers, G = shards.

Activations inside a network are wide: 800,000 numbers per image in the first layers of a ResNet. So each shard is
represented once, each layer is reduced to its Gram matrix (n, n), and CKA is computed from blocks
(`netsim.similarity.blocked`), unbiased, with the jackknife over shards. The store keeps HSIC_1 of every two layers:

    layers/<key>/spec.json            networks, layers, their axes, and whether activations are pooled or flattened
    layers/<key>/<set>/<shard>.npz    hsic (L, L), magnitudes (L,): the first network's layers, then the second's

Like other measures, layers are not part of a sweep's settings: the images are stored, so they can be compared later.

Source: Nguyen, Raghu and Kornblith 2021, https://arxiv.org/abs/2010.15327 (CKA from minibatches).
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from netsim.errors import StoreError
from netsim.similarity.blocked import cka_of_blocks
from netsim.similarity.uncertainty import jackknife_se, plain
from netsim.store import provenance
from netsim.store.layout import NATURAL, inverted
from netsim.store.run import Run
from netsim.store.stages import Stage
from netsim.store.sweeps import Sweep

Activations = Literal["pooled", "flattened"]


@dataclass(frozen=True)
class LayerSpec:
    """A comparison of layers of one network (rows) with layers of another, or the same, network (columns).

    Attributes
    ----------
    networks
        Names of both networks.
    layers
        Names of the layers of each, as in `named_modules()`.
    activations
        "pooled" (means over positions) or "flattened" (all values).
    axes
        Axes of images and of channels in the outputs of those layers that have unusual ones, for each network.
    refused
        Layers that match the patterns but cannot be compared, with the reason, for each network.
    """

    networks: tuple[str, str]
    layers: tuple[tuple[str, ...], tuple[str, ...]]
    activations: Activations
    axes: tuple[Mapping[str, tuple[int, int]], Mapping[str, tuple[int, int]]] = ({}, {})
    refused: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})

    @property
    def key(self) -> str:
        """Name in the store: 12 hex digits of a SHA-256 over the fields that results depend on."""
        values = {name: value for name, value in asdict(self).items() if name != "refused"}
        if not any(self.axes):
            del values["axes"]  # as in stores of versions that knew the usual ones only
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def sets(self) -> list[str]:
        """Sets of images to compare on: natural, and inverted through each network."""
        return [NATURAL, *dict.fromkeys(inverted(name) for name in self.networks)]


def keep_spec(run: Run, spec: LayerSpec) -> None:
    """Store the spec, so that workers can read it."""
    run.files.put(_spec_path(spec.key), json.dumps(asdict(spec), indent=2).encode())


def find_spec(run: Run, key: str) -> LayerSpec:
    """Read the spec that is stored under `key`."""
    values = json.loads(run.files.get(_spec_path(key)))
    first, second = (tuple(layers) for layers in values["layers"])
    axes, other_axes = ({layer: tuple(pair) for layer, pair in axes.items()} for axes in values.get("axes", ({}, {})))
    refused = tuple(values.get("refused", ({}, {})))
    return LayerSpec(tuple(values["networks"]), (first, second), values["activations"], (axes, other_axes), refused)


def _spec_path(key: str) -> str:
    return f"layers/{key}/spec.json"


def layer_file(name: str, shard: int) -> str:
    """Return the path of a shard in the store; `name` is `<key>/<set>`."""
    return f"layers/{name}/{shard:05d}.npz"


@dataclass(frozen=True)
class LayerSimilarity:
    """Unbiased CKA of layers on one set, and its standard error, each (layers of the first, layers of the second)."""

    cka: np.ndarray
    se: np.ndarray


def load_layers(run: Run, spec: LayerSpec) -> dict[str, LayerSimilarity]:
    """Read the similarity of layers by set, in the order of `spec.sets`.

    Raises
    ------
    StoreError
        If a shard is missing or damaged, or was computed with other weights or images than the run has now.
    """
    return {name: _load(run, spec, name) for name in spec.sets}


def finished_layers(run: Run) -> dict[str, LayerSpec]:
    """Find the comparisons of layers that are complete for the pairs and networks of the sweep, by key."""
    keys = sorted({name.partition("/")[0] for name, _ in run.done("layers")})
    specs = {key: find_spec(run, key) for key in keys}
    return {
        key: spec
        for key, spec in specs.items()
        if set(spec.networks) <= set(run.sweep.names) and not layer_stage(spec).missing(run)
    }


def layers_json(spec: LayerSpec, similarities: Mapping[str, LayerSimilarity]) -> dict[str, Any]:
    """Convert to what `netsim layers --json` prints; rows are layers of the first network, None where undefined."""
    return {
        "networks": list(spec.networks),
        "layers": [list(layers) for layers in spec.layers],
        "activations": spec.activations,
        "left_out": [dict(refused) for refused in spec.refused],
        "sets": {
            name: {"cka_unbiased": plain(layers.cka.tolist()), "se": plain(layers.se.tolist())}
            for name, layers in similarities.items()
        },
    }


def _load(run: Run, spec: LayerSpec, set_name: str) -> LayerSimilarity:
    name, hsic, magnitudes = f"{spec.key}/{set_name}", [], []
    shards = range(run.sweep.shards)
    records = run.records("layers", name, shards)
    provenance.check_origins(run, records)
    for shard, record in zip(shards, records, strict=True):
        provenance.check_weights(run, record)
        path = layer_file(name, shard)
        try:
            with np.load(io.BytesIO(run.read_file(record, path)), allow_pickle=False) as stored:
                hsic.append(stored["hsic"])
                magnitudes.append(stored["magnitudes"])
        except (ValueError, KeyError, OSError) as error:
            raise StoreError(f"{path} in {run.url} is damaged ({error}); {run.repair_hint}") from None
    weights = np.full(len(hsic), float(run.settings.pairs.shard_size))
    cka, leave_one_out = cka_of_blocks(np.stack(hsic), np.stack(magnitudes), weights)
    rows, columns = slice(len(spec.layers[0])), slice(len(spec.layers[0]), None)
    return LayerSimilarity(cka=cka[rows, columns], se=jackknife_se(leave_one_out[:, rows, columns]))


def layer_stage(spec: LayerSpec) -> Stage:
    """Return the stage that computes a spec: one unit per set and shard."""

    def shards(sweep: Sweep) -> dict[str, int]:
        return {f"{spec.key}/{name}": sweep.shards for name in spec.sets}

    return Stage("layers", "Shards compared layer by layer", shards, gpu=True, per_pair=True)
