"""Stores and sweeps below a folder or a bucket: their state, size and age, and what they compare."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from netsim.errors import StoreError, UnreachableError, first_line
from netsim.storage.concurrency import concurrently
from netsim.storage.files import Files
from netsim.store.run import Run, all_sweeps
from netsim.store.status import status
from netsim.store.sweeps import Sweep

DEPTH = 4
"""Levels of folders that are searched for stores."""


@dataclass(frozen=True)
class ListedSweep:
    """A sweep of a store.

    Attributes
    ----------
    state
        "complete", or how far its first unfinished stage is.
    asked
        When it was run last, in UTC.
    """

    name: str
    id: str
    state: str
    networks: tuple[str, ...]
    observers: tuple[str, ...]
    pairs: int
    asked: str


@dataclass(frozen=True)
class ListedStore:
    """A store.

    Attributes
    ----------
    run
        Digest of its protocol.
    bytes
        Size of all its files.
    fault
        Why it cannot be read; "" if it can.
    sweeps
        Its sweeps, the one run last at the end.
    """

    url: str
    run: str
    bytes: int
    fault: str
    sweeps: tuple[ListedSweep, ...]

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object."""
        return asdict(self)


def list_stores(place: str) -> list[ListedStore]:
    """List the stores at a place and below it, by their paths.

    Raises
    ------
    StoreError
        If the place does not exist.
    UnreachableError
        If it does not answer.
    """
    files = Files(place, setting="PLACE")
    if not files.is_folder():
        raise StoreError(f"PLACE must be a folder or a bucket with stores, got {files.url}, which does not exist")
    return concurrently(lambda path: _listed(f"{files.url}/{path}".rstrip("/")), _stores(files))


def _stores(files: Files) -> list[str]:
    """Find the folders that hold a Zarr group, without looking into them."""
    stores, level = list[str](), [""]
    for _ in range(DEPTH + 1):
        hold = concurrently(lambda path: files.exists(f"{path}/zarr.json".lstrip("/")), level)
        stores += [path for path, holds in zip(level, hold, strict=True) if holds]
        rest = [path for path, holds in zip(level, hold, strict=True) if not holds]
        below = concurrently(files.folders, rest)
        level = [f"{path}/{name}".lstrip("/") for path, names in zip(rest, below, strict=True) for name in names]
    return sorted(stores)


def _listed(url: str) -> ListedStore:
    files = Files(url)
    parts: list[Callable[[], Any]] = [lambda: _sweeps(url), lambda: sum(files.sizes(depth=99).values())]
    (run, fault, sweeps), size = concurrently(lambda part: part(), parts)
    return ListedStore(url=files.url, run=run, bytes=size, fault=fault, sweeps=tuple(sweeps))


def _sweeps(url: str) -> tuple[str, str, list[ListedSweep]]:
    """Return the digest of a store, why it cannot be read, and its sweeps."""
    try:
        run = Run.open(url)
        return run.digest, "", [_listed_sweep(run.seen_by(sweep)) for sweep in all_sweeps(run.files)]
    except UnreachableError:
        raise
    except StoreError as error:
        return "", first_line(error), []


def _listed_sweep(run: Run) -> ListedSweep:
    sweep: Sweep = run.sweep
    unfinished = [stage for stage in status(run) if not stage.finished]
    state = f"{unfinished[0].name} {unfinished[0].done}/{unfinished[0].total}" if unfinished else "complete"
    return ListedSweep(
        name=sweep.label,
        id=sweep.id,
        state=state,
        networks=sweep.settings.names,
        observers=tuple(member.name for member in sweep.settings.observing),
        pairs=sweep.settings.pairs.count,
        asked=sweep.asked,
    )


def age(when: str, now: datetime | None = None) -> str:
    """Return how long ago a time in UTC was, in its largest unit.

    Examples
    --------
    >>> age("2026-11-29T08:00:00+00:00", datetime(2026, 11, 29, 11, 30, tzinfo=UTC))
    '3 h'
    """
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(when)).total_seconds()
    except ValueError:
        return "?"
    units = (("d", 86400), ("h", 3600), ("min", 60))
    return next((f"{seconds // length:.0f} {unit}" for unit, length in units if seconds >= length), f"{seconds:.0f} s")
