"""Views of a store: some of its networks on some of its pairs, whatever sweeps were run."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from shlex import quote

from netsim.errors import SettingsError, nearest
from netsim.settings import Member, NetworkSettings, SweepSettings
from netsim.store.run import Run, all_networks, all_sweeps
from netsim.store.sweeps import StoredNetwork, Sweep

WHOLE = "*"
"""In place of a sweep: all networks and all pairs that the store was asked for."""


def open_run(store: str, sweep: str | None = None) -> Run:
    """Open a store as one of its sweeps sees it, or as `WHOLE`; raises as `Run.open` does."""
    return whole(Run.open(store)) if sweep == WHOLE else Run.open(store, sweep)


def whole(run: Run) -> Run:
    """Return the store as a sweep of all its networks and pairs would see it."""
    sweeps = all_sweeps(run.files)
    networks = _with_last_references(all_networks(run.files), sweeps)
    most = max(sweeps, key=lambda sweep: sweep.settings.pairs.count)
    listed = tuple(_listed(Member(each.name, each.reference, each.training, each.name)) for each in networks)
    return run.seen_by(_sweep(run.sweep, listed, networks, (), (), most.settings.pairs.count))


def _with_last_references(networks: Iterable[StoredNetwork], sweeps: Iterable[Sweep]) -> list[StoredNetwork]:
    """Refer to networks as the sweeps run last did: files of weights may have moved since they joined the store."""
    last = {(each.name, each.identity): each for sweep in sweeps for each in (*sweep.networks, *sweep.observers)}
    return [last.get((each.name, each.identity), each) for each in networks]


def view(run: Run, networks: Sequence[str] | None = None, pairs: int | None = None) -> Run:
    """Return the store as a sweep of some networks, on the first pairs, would see it.

    Parameters
    ----------
    run
        The store, seen by a sweep whose networks and pairs are the defaults.
    networks
        Names as the sweep shows them, or as the store has them; in the order in which to show them.
    pairs
        Number of pairs.

    Raises
    ------
    SettingsError
        If a network is unknown, alone or named twice, or there are not so many pairs, or they are not whole shards.
    """
    sweep = run.sweep
    count = sweep.settings.pairs.count if pairs is None else _count(run, pairs)
    if networks is None and count == sweep.settings.pairs.count:
        return run
    known = _known(run)
    if networks is None:
        chosen = [name for name in sweep.shown if name in sweep.settings.names]
        observing = [member.name for member in sweep.settings.observing]
    else:
        chosen, observing = list(networks), []
    for name in (*chosen, *observing):
        if name not in known:
            raise SettingsError(f"no network {name!r} in {run.url}{nearest(name, known)}")
    if networks is not None and len(set(networks)) < max(2, len(networks)):
        raise SettingsError(f"--networks must be two or more different names, got {', '.join(networks) or 'none'}")
    inverted, observers = ([known[name] for name in some] for some in (chosen, observing))
    listed, looking = (tuple(_listed(member) for member, _ in some) for some in (inverted, observers))
    stored, seeing = ([network for _, network in some] for some in (inverted, observers))
    return run.seen_by(_sweep(sweep, listed, stored, looking, seeing, count))


def _known(run: Run) -> dict[str, tuple[Member, StoredNetwork]]:
    """Map every name of a network, in the store and in the sweep, to how it is shown and what it is."""
    networks = _with_last_references(all_networks(run.files), all_sweeps(run.files))
    known = {each.name: (Member(each.name, each.reference, each.training, each.name), each) for each in networks}
    members = (*run.settings.members, *run.settings.observing)
    return known | {member.name: (member, run.sweep.network(run.sweep.shown[member.name])) for member in members}


def _count(run: Run, pairs: int) -> int:
    size = run.settings.pairs.shard_size
    most = max(sweep.settings.pairs.count for sweep in all_sweeps(run.files))
    if pairs % size or not 2 * size <= pairs <= most:
        raise SettingsError(
            f"--pairs must be a multiple of {size} from {2 * size} to {most}, the pairs in {run.url}, got {pairs}; "
            f"`netsim extend {quote(run.url)} --pairs N` adds pairs"
        )
    return pairs


def _listed(member: Member) -> NetworkSettings:
    """Spell out a network as settings do."""
    training = None if member.training is None else member.training.model_dump(mode="json")
    return NetworkSettings(reference=member.reference, name=member.name, training=training, group=member.group)


def _sweep(
    sweep: Sweep,
    listed: Iterable[NetworkSettings],
    networks: Iterable[StoredNetwork],
    looking: Iterable[NetworkSettings],
    observers: Iterable[StoredNetwork],
    count: int,
) -> Sweep:
    settings = SweepSettings(
        images=sweep.settings.images,
        networks=tuple(listed),
        observers=tuple(looking),
        training=sweep.settings.training,
        pairs=sweep.settings.pairs.model_copy(update={"count": count, "until": None}),
        inversion=sweep.settings.inversion,
    )
    return replace(sweep, settings=settings, networks=tuple(networks), observers=tuple(observers), at_most=None)
