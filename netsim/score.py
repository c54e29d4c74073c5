"""A network that only looks: its column of both matrices, from what a finished run has stored. Nothing is stored.

The network represents the natural and the inverted images of the run, and is compared with the networks that these were
inverted through. The values are those that it would have as an observer in the settings, to the last bit. It also looks
at the seeds, for the seed-only control of each cell (`netsim.results.controls`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.errors import SettingsError
from netsim.networks import Network, content_hash, load_network
from netsim.planning.resolve import identify
from netsim.references import is_trained_here, network_name, without_name
from netsim.results.matrices import sums_of
from netsim.results.twins import counted_mean
from netsim.similarity.cka import PairSimilarity, pair_similarities
from netsim.similarity.hsic import Hsic
from netsim.similarity.streaming import Pair, pair_hsic
from netsim.similarity.uncertainty import Estimate, jackknife
from netsim.stages.inputs import Represented, device, represent, require_float32, set_images
from netsim.store.layout import NATURAL, SEED, cell, inverted
from netsim.store.metadata import train_metadata
from netsim.store.provenance import weights_hash
from netsim.store.run import Run
from netsim.store.stages import STAGES, require_finished

KINDS = ("natural", "inverted", "natural_seed", "inverted_seed")
"""Columns of a score."""


@dataclass(frozen=True)
class Score:
    """The column of a network that only looks.

    Attributes
    ----------
    n, shards
        Numbers of pairs and of shards.
    natural, inverted
        Unbiased CKA with each network of the run, on natural images and on those inverted through it.
    natural_seed, inverted_seed
        The seed-only control of each: CKA of the network of the run on these images with the one that looks on seeds.
    means
        Means over the networks with other weights: of all of these and, paired, "difference", natural minus inverted.
    twins
        Networks of the run that have the same weights.
    """

    name: str
    reference: str
    weights_hash: str
    n: int
    shards: int
    natural: Mapping[str, Estimate]
    inverted: Mapping[str, Estimate]
    natural_seed: Mapping[str, Estimate]
    inverted_seed: Mapping[str, Estimate]
    means: Mapping[str, Estimate]
    twins: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain mappings."""
        estimates = {
            kind: {name: value.to_json() for name, value in getattr(self, kind).items()} for kind in (*KINDS, "means")
        }
        described = {key: getattr(self, key) for key in ("name", "reference", "weights_hash", "n", "shards")}
        return described | estimates | {"twins": list(self.twins)}


def score(run: Run, reference: str, *, on_set: Callable[[], None] = lambda: None) -> Score:
    """Let a network look at the images of a finished run.

    Parameters
    ----------
    run
        The run; it is only read.
    reference
        The network, as `[name=]source:name[@weights]`.
    on_set
        Called after each set of images.

    Raises
    ------
    SettingsError
        If the network has no weights.
    NetworkError
        If it cannot be loaded, or a representation is not finite.
    StoreError
        If the run is not finished or damaged.
    """
    name, source = network_name(reference), without_name(reference)
    if is_trained_here(source):
        raise SettingsError(f"{source} must have weights to look, got none; `netsim add` trains it in a run")
    require_finished(run, STAGES[:-1])
    shape = train_metadata(run, run.sweep.names[0]).input_shape
    network = load_network(source, input_shape=shape)
    require_float32(network)
    network = network.eval().to(device())
    key = identify(source, lambda: shape).key
    seeds = _represented(run, network, SEED)
    on_set()
    stored, similarities = sums_of(run), dict[str, dict[str, Cell]]()
    for set_name in (NATURAL, *map(inverted, run.sweep.names)):
        similarities[set_name] = _column(run, network, key, set_name, stored[set_name], seeds)
        on_set()
    return _score(run, name, source, content_hash(network), similarities)


NEW, NEW_SEEDS = "", "/"
"""Keys of what the network that looks sees of a set, and of the seeds; they are no valid names."""

Cell = tuple[PairSimilarity, PairSimilarity]
"""A cell and its seed-only control."""


def _column(
    run: Run, network: Network, key: str, set_name: str, stored: Mapping[Pair, Hsic], seeds: Sequence[np.ndarray]
) -> dict[str, Cell]:
    """Compare the network with those of a set: all on natural images, or the one they were inverted through."""
    names = run.sweep.names if set_name == NATURAL else (set_name.removeprefix("inverted/"),)
    looks = Represented(run, set_name, names, run.sweep.shards)
    rows = _represented(run, network, set_name)
    sources = [{**looks.read(shard), NEW: rows[shard], NEW_SEEDS: seeds[shard]} for shard in range(run.sweep.shards)]
    identities = {**run.sweep.identities(names), NEW: key}
    pairs: dict[str, Pair] = {}
    for name in names:
        row = f"{NATURAL}/{name}" if set_name == NATURAL else inverted(name)
        pairs[name] = cell(row, NEW, identities)
    controls = {name: (name, NEW_SEEDS) for name in names}
    wanted = [*pairs.values(), *controls.values()]
    sums = dict(stored) | pair_hsic(sources, [*wanted, (NEW, NEW), (NEW_SEEDS, NEW_SEEDS)])
    values = pair_similarities(sums, wanted)
    return {name: (values[pairs[name]], values[controls[name]]) for name in names}


def _represented(run: Run, network: Network, set_name: str) -> list[np.ndarray]:
    """Represent the images of a set, shard by shard."""
    shards = (set_images(run, set_name, shard)[0] for shard in range(run.sweep.shards))
    return [represent(network, images).numpy().astype(np.float32) for images in shards]


def _score(run: Run, name: str, reference: str, weights: str, similarities: Mapping[str, Mapping[str, Cell]]) -> Score:
    names = {member.name: run.sweep.shown[member.name] for member in run.settings.members}
    natural = [similarities[NATURAL][stored] for stored in names.values()]
    after = [similarities[inverted(stored)][stored] for stored in names.values()]
    cells = {
        kind: [cell[position] for cell in column]
        for kind, (column, position) in zip(KINDS, [(natural, 0), (after, 0), (natural, 1), (after, 1)], strict=True)
    }
    values = {kind: np.array([each.cka_unbiased for each in column]) for kind, column in cells.items()}
    left_out = {kind: np.array([each.leave_one_out_unbiased for each in column]) for kind, column in cells.items()}
    values["difference"] = values["natural"] - values["inverted"]
    left_out["difference"] = left_out["natural"] - left_out["inverted"]
    twins = np.array([weights_hash(run, stored) == weights for stored in names.values()])
    every = {kind: [jackknife(*pair) for pair in zip(values[kind], left_out[kind], strict=True)] for kind in cells}
    return Score(
        name=name,
        reference=reference,
        weights_hash=weights,
        n=run.settings.pairs.count,
        shards=run.sweep.shards,
        **{kind: dict(zip(names, every[kind], strict=True)) for kind in KINDS},
        means={
            kind: jackknife(float(counted_mean(values[kind], ~twins)), counted_mean(left_out[kind], ~twins))
            for kind in values
        },
        twins=tuple(shown for shown, twin in zip(names, twins, strict=True) if twin),
    )
