"""Dropping networks and sweeps from a store: what only they needed is removed, everything else stays.

Records go before the values they cover, and the document of a network goes last: what is interrupted is continued by
the same command. A record of representations that a network shares with others is written again without it.
"""

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby
from shlex import quote

from netsim.errors import SettingsError, nearest
from netsim.storage.concurrency import concurrently
from netsim.storage.files import Files
from netsim.store.layout import embed_unit, inverted, representation_path
from netsim.store.records import RECORD_FILE, commit_path, sealed_line
from netsim.store.run import Run, all_networks, all_sweeps, cohort_path, network_path, sweep_path
from netsim.store.stages import Unit
from netsim.store.sweeps import StoredNetwork, Sweep


@dataclass(frozen=True)
class Dropped:
    """Networks and sweeps to drop, with the files that go.

    Attributes
    ----------
    networks
        Networks, by their names in the store.
    sweeps
        Sweeps that are forgotten.
    paths
        All files to remove, in order.
    shared
        Units of `embed` whose record is to be written again, for the rest of their cohort.
    """

    networks: tuple[str, ...]
    sweeps: tuple[Sweep, ...]
    paths: tuple[str, ...]
    shared: tuple[Unit, ...]


def plan_drop(store: str, names: Sequence[str], sweeps: Sequence[str] = ()) -> Dropped:
    """Find what belongs to networks, and to sweeps, only. Nothing is removed.

    Parameters
    ----------
    store
        Path or URL of the store.
    names
        Networks, by their names in the store or in a sweep.
    sweeps
        Sweeps, by name or id. With networks, those of a name that show one of them; else all of that name.

    Raises
    ------
    SettingsError
        If a network or a sweep is unknown, or another sweep shows a network.
    """
    files = Files(store)
    stored, known = all_networks(files), all_sweeps(files)
    networks = tuple(dict.fromkeys(_stored_name(name, stored, known, files.url) for name in names))
    forgotten = _forgotten(networks, sweeps, known, files.url)
    for name in networks:
        showing = [sweep for sweep in known if name in sweep.columns and sweep not in forgotten]
        if showing:
            listed = ", ".join(f"{sweep.label} ({sweep.id})" for sweep in showing)
            options = " ".join(f"--sweep {quote(sweep.id)}" for sweep in showing)
            raise SettingsError(
                f"{name} must not be dropped while a sweep shows it, got {listed}; drop those too: "
                f"`netsim drop {quote(files.url)} {' '.join(map(quote, names))} {options}`"
            )
    kept = {sweep.id for sweep in known} - {sweep.id for sweep in forgotten}
    shared = tuple(_shared(files, networks))
    return Dropped(networks, tuple(forgotten), tuple(_paths(files, networks, forgotten, kept, shared)), shared)


def drop(store: str, dropped: Dropped) -> None:
    """Remove what was planned. Call it again if it was interrupted."""
    files = Files(store)
    _keep_the_rest(store, dropped)
    for _, paths in groupby(dropped.paths, key=_turn):
        concurrently(files.remove, list(paths))


def _turn(path: str) -> int:
    """Return the turn in which a file is removed: records first, and last what names their parts."""
    if path.endswith("/spec.json"):
        return 2
    folders = ("sweeps/", "commits/"), ("cohorts/",), ("networks/",)
    turns = [0, 2, 3]
    return next((turn for turn, some in zip(turns, folders, strict=True) if path.startswith(some)), 1)


def _stored_name(name: str, stored: Iterable[StoredNetwork], every: Iterable[Sweep], url: str) -> str:
    known = {network.name: network.name for network in stored}
    for sweep in every:
        known = sweep.shown | known
    if name not in known:
        raise SettingsError(f"no network {name!r} in {url}{nearest(name, known)}")
    return known[name]


def _forgotten(networks: Sequence[str], sweeps: Sequence[str], every: Sequence[Sweep], url: str) -> list[Sweep]:
    """Select the sweeps to forget."""
    for name in sweeps:
        if not any(name in (sweep.label, sweep.id) for sweep in every):
            raise SettingsError(f"no sweep {name!r} in {url}{nearest(name, [sweep.label for sweep in every])}")
    named = [sweep for sweep in every if sweep.label in sweeps or sweep.id in sweeps]
    if not networks:
        return named
    return [sweep for sweep in named if sweep.id in sweeps or not set(networks).isdisjoint(sweep.columns)]


def _shared(files: Files, networks: Sequence[str]) -> list[Unit]:
    """List the units of `embed` of which some networks are in the cohort, for sets that stay."""
    cohorts: dict[str, bool] = {}
    units = []
    for path in files.modification_times("commits/embed"):
        set_name, cohort, record = path.rsplit("/", 2)
        if not RECORD_FILE.fullmatch(record) or set_name in [inverted(name) for name in networks]:
            continue
        if cohort not in cohorts:
            cohorts[cohort] = not set(networks).isdisjoint(json.loads(files.get(cohort_path(cohort))))
        if cohorts[cohort]:
            units.append(("embed", f"{set_name}/{cohort}", int(record.removesuffix(".json"))))
    return sorted(units)


def _keep_the_rest(store: str, dropped: Dropped) -> None:
    """Write the records of units again for those networks of their cohorts that stay."""
    if not dropped.shared:
        return
    run = Run.open(store)
    for record in run.records_of(dropped.shared).values():
        set_name, _, key = record.name.rpartition("/")
        rest = {name: identity for name, identity in run.cohort(key).items() if name not in dropped.networks}
        if not rest:
            continue
        paths = {representation_path(set_name, name) for name in rest}
        facts = record.facts | {"weights": {name: record.facts["weights"][name] for name in rest}}
        arrays = {path: content for path, content in record.arrays.items() if path in paths}
        name = embed_unit(set_name, run.keep_cohort(rest))
        document = sealed_line(asdict(replace(record, name=name, arrays=arrays, facts=facts)))
        run.files.put_new(commit_path("embed", name, record.shard), document)


def _paths(
    files: Files, networks: Iterable[str], sweeps: Iterable[Sweep], kept: Set[str], shared: Iterable[Unit]
) -> list[str]:
    """List all files that belong to networks and to sweeps only, and what is left of sweeps that are not kept."""
    folders = ["commits", "aside", "inverted", "representations", "similarity", "controls", "measures", "layers"]
    folders += ["weights", "training", "results", "report", "cohorts"]
    listings = concurrently(files.modification_times, folders)
    stored = [f"{folder}/{path}" for folder, listing in zip(folders, listings, strict=True) for path in listing]
    patterns = [pattern for name in networks for pattern in _patterns(name)]
    patterns += [pattern for key in _layers_of(files, set(networks)) for pattern in _patterns_of_layers(key)]
    patterns += [pattern for key in _cohorts_of(files, set(networks)) for pattern in _patterns_of_cohort(key)]
    records = {commit_path(*unit) for unit in shared}
    removed = [
        path
        for path in stored
        if path in records or _of_other_sweeps(path, kept) or any(fnmatchcase(path, pattern) for pattern in patterns)
    ]
    every = [sweep_path(sweep.id) for sweep in sweeps] + removed + [network_path(name) for name in networks]
    return sorted(every, key=lambda path: (_turn(path), path))


def _cohorts_of(files: Files, networks: Set[str]) -> list[str]:
    """List the cohorts that have none but these networks."""
    paths = [f"cohorts/{name}" for name in files.names("cohorts")] if networks else []
    contents = files.get_all(paths)
    return [
        path.removeprefix("cohorts/").removesuffix(".json")
        for path, data in contents.items()
        if json.loads(data).keys() <= networks
    ]


def _layers_of(files: Files, networks: Set[str]) -> list[str]:
    """List the comparisons of layers in which one of these networks takes part, by their keys."""
    contents = files.get_all([f"layers/{key}/spec.json" for key in files.folders("layers")]) if networks else {}
    return [path.split("/")[1] for path, data in contents.items() if networks & set(json.loads(data)["networks"])]


def _patterns_of_layers(key: str) -> list[str]:
    return [f"layers/{key}/*", f"commits/layers/{key}/*", f"aside/layers/{key}/*"]


def _patterns_of_cohort(key: str) -> list[str]:
    units = [
        f"commits/*/{key}/*",
        f"commits/*/{key}-*/*",
        *(f"{kind}/*/{key}-*/*" for kind in ("similarity", "controls", "measures")),
    ]
    return [f"cohorts/{key}.json", *units]


def _of_other_sweeps(path: str, kept: Set[str]) -> bool:
    """Return True for a file of the report on a sweep that is not kept."""
    folder, _, rest = path.removeprefix("commits/").removeprefix("aside/").partition("/")
    return folder in ("report", "results") and "/" in rest and rest.partition("/")[0] not in kept


def _patterns(network: str) -> list[str]:
    """List the patterns of a network's paths: `*` also stands for slashes."""
    rows = [f"natural/{network}", f"inverted/{network}"]
    folders = [f"inverted/{network}", f"representations/inverted/{network}", f"controls/inverted/{network}"]
    folders += [f"representations/natural/{network}", f"representations/seed/{network}"]
    folders += [f"representations/inverted/*/{network}", *(f"similarity/{row}" for row in rows)]
    folders += [f"measures/*/{row}" for row in rows]
    for kind in ("commits", "aside"):
        folders += [f"{kind}/train/{network}", f"{kind}/invert/{network}", f"{kind}/embed/inverted/{network}"]
        folders += [f"{kind}/{stage}/{row}" for stage in ("aggregate", "control", "measure/*") for row in rows]
    return [f"{folder}/*" for folder in folders] + [f"weights/{network}.safetensors", f"training/{network}.checkpoint"]
