"""Reasons why units of a stage are missing: what is new in a sweep, compared with what the store was asked before."""

from collections.abc import Iterable, Sequence

from netsim.planning.resolve import Known
from netsim.store.layout import RowUnit, row_parts
from netsim.store.run import Run
from netsim.store.stages import Stage

MAX_NAMED = 3
"""Networks that a reason lists by name."""


def reasons(run: Run, known: Known, stage: Stage, missing: Sequence[tuple[str, int]]) -> list[str]:
    """Explain the missing units of a stage, one reason for each cause.

    Parameters
    ----------
    run
        The store as the sweep sees it.
    known
        What the store had before.
    stage
        The stage.
    missing
        Its missing units (name, shard).
    """
    if not missing:
        return []
    if not known.sweeps:
        return ["new store"]
    if stage.name == "report":
        return ["new sweep" if run.sweep.id not in {sweep.id for sweep in known.sweeps} else "not written yet"]
    causes = _Causes(run, known)
    new, apart, grown, unfinished = set[str](), set[str](), False, False
    for name, shard in missing:
        networks, unasked = causes.new_networks(stage, name), causes.not_asked(stage, name)
        beyond = causes.beyond(stage, name, shard)
        new |= networks
        apart |= set() if networks else unasked
        grown = grown or beyond
        unfinished = unfinished or not (networks or unasked or beyond)
    return [
        *(_new_networks(run, new) if new else []),
        *([_first_time(stage, apart)] if apart else []),
        *([f"pairs {causes.pairs} → {run.settings.pairs.count}"] if grown else []),
        *(["not finished before"] if unfinished else []),
    ]


class _Causes:
    def __init__(self, run: Run, known: Known) -> None:
        self._run = run
        self._networks = {network.name for network in known.networks}
        self._counts = {sweep.settings.pairs.count for sweep in known.sweeps}
        self._asked = [(set(sweep.names), set(sweep.columns)) for sweep in known.sweeps]
        self.pairs = max(self._counts)

    def new_networks(self, stage: Stage, name: str) -> set[str]:
        """List the networks of a unit that the store did not have."""
        return {network for network in self._of(stage, name) if network not in self._networks}

    def not_asked(self, stage: Stage, name: str) -> set[str]:
        """Spell out what no sweep had asked of the networks of a unit: to invert one, or to compare two."""
        if stage.name == "invert":
            return set() if any(name in names for names, _ in self._asked) else {name}
        if stage.name not in ("embed", "aggregate", "control"):
            return set()
        row, cohort = self._row(stage, name)
        return {
            f"{row} with {observer}"
            for observer in cohort
            if row and not any(row in names and observer in columns for names, columns in self._asked)
        }

    def _of(self, stage: Stage, name: str) -> Iterable[str]:
        if stage.name in ("train", "invert"):
            return [name]
        if stage.name in ("embed", "aggregate", "control"):
            row, cohort = self._row(stage, name)
            return [*cohort, *([row] if row else [])]
        return []

    def _row(self, stage: Stage, name: str) -> tuple[str, Iterable[str]]:
        """Return the network of a unit's set or row, "" for the natural set, and those that look."""
        if stage.name in ("aggregate", "control"):
            parts = RowUnit.parse(name)
            return row_parts(parts.row)[1], self._run.cohort(parts.cohort)
        set_name, _, cohort = name.rpartition("/")
        return row_parts(set_name)[1], self._run.cohort(cohort)

    def beyond(self, stage: Stage, name: str, shard: int) -> bool:
        """Return True if a unit is of pairs, or compares over pairs, that the store was not asked for."""
        size = self._run.settings.pairs.shard_size
        if stage.name in ("aggregate", "control"):
            return RowUnit.parse(name).shards * size not in self._counts
        return stage.per_pair and shard * size >= self.pairs


def _new_networks(run: Run, names: Iterable[str]) -> list[str]:
    """Spell out new networks, in the order of the sweep."""
    listed = [name for name in run.sweep.columns if name in set(names)]
    return [f"new network{'s' if len(listed) > 1 else ''} {_first(listed)}"]


def _first_time(stage: Stage, unasked: Iterable[str]) -> str:
    """Spell out what no sweep had asked of known networks."""
    return f"not {'inverted' if stage.name == 'invert' else 'compared'} before: {_first(sorted(unasked))}"


def _first(listed: Sequence[str]) -> str:
    """List the first ones, and count the others."""
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return f"{', '.join(listed[:MAX_NAMED])}{more}"
