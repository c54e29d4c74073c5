"""Layers of two networks against each other, naturally and after inversion. n = images of a shard, L layers, G shards.

Inside a network activations are wide: 800,000 numbers an image where a ResNet begins. So a shard is looked at once,
each layer leaves its Gram matrix (n, n), and CKA is that of blocks (`netsim.similarity.blocked`), unbiased, with the
jackknife over shards; as in Nguyen et al. 2021 (arXiv:2010.15327). Kept is HSIC_1 of every two layers, for each shard:

    layers/<key>/spec.json            which networks and layers, and whether activations are pooled or flattened
    layers/<key>/<set>/<shard>.npz    hsic (L, L), magnitudes (L,): the first network's layers, then the second's

Not part of a sweep's settings, as other measures are not: the images are in the store, so it can be asked for any time.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from netsim.errors import StoreError
from netsim.settings import SweepSettings
from netsim.similarity.blocked import cka_of_blocks
from netsim.similarity.uncertainty import jackknife_se
from netsim.store import provenance
from netsim.store.layout import NATURAL, inverted
from netsim.store.run import Run
from netsim.store.stages import Stage

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


# Work ----------------------------------------------------------------------------------------------------------------


def keep_spec(run: Run, spec: LayerSpec) -> None:
    """Put the spec where workers find it."""
    run.files.put(_spec_path(spec.key), json.dumps(asdict(spec), indent=2).encode())


def find_spec(run: Run, key: str) -> LayerSpec:
    values = json.loads(run.files.get(_spec_path(key)))
    first, second = (tuple(layers) for layers in values["layers"])
    return LayerSpec(tuple(values["networks"]), (first, second), values["activations"])


def _spec_path(key: str) -> str:
    return f"layers/{key}/spec.json"


def layer_file(name: str, shard: int) -> str:
    return f"layers/{name}/{shard:05d}.npz"


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
    known = provenance.dependency_records(run, (("layers", name, shard) for shard in shards))
    for shard, record in zip(shards, run.records("layers", name, shards), strict=True):
        provenance.check_weights(run, record)
        provenance.check_origin(run, record, known)
        path = layer_file(name, shard)
        try:
            with np.load(io.BytesIO(run.read_file(record, path)), allow_pickle=False) as stored:
                hsic.append(stored["hsic"])
                magnitudes.append(stored["magnitudes"])
        except (ValueError, KeyError, OSError) as error:
            raise StoreError(f"{path} in {run.url} is damaged ({error}); {run.repair_hint}") from None
    weights = np.full(len(hsic), float(run.settings.pairs.shard_size))
    whole, left_out = cka_of_blocks(np.stack(hsic), np.stack(magnitudes), weights)
    rows, columns = slice(len(spec.layers[0])), slice(len(spec.layers[0]), None)
    return LayerSimilarity(cka=whole[rows, columns], se=jackknife_se(left_out[:, rows, columns]))


def layer_stage(spec: LayerSpec) -> Stage:
    """The work of a spec: every shard of its sets."""

    def shards(settings: SweepSettings) -> dict[str, int]:
        return {f"{spec.key}/{name}": settings.pairs.shards for name in spec.sets}

    return Stage("layers", "Shards looked at, layer by layer", shards, gpu=True, per_pair=True)
