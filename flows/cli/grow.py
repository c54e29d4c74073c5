"""`netsim add`, `extend`, `score`, `drop`, `list` and `compare`: stores that grow, and several side by side."""

import json
import os
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import (
    ClusterFile,
    Credentials,
    Debug,
    Json,
    Pairs,
    Quiet,
    Scheduler,
    ShardsPerTask,
    Store,
    Sweep,
    Tls,
    Workers,
)
from flows.cli.run import run_sweep
from flows.cli.session import cluster_options, use_credentials
from netsim.errors import SettingsError
from netsim.references import with_absolute_paths

if TYPE_CHECKING:
    from netsim.settings import SweepSettings
    from netsim.store.run import Run

References = Annotated[
    list[str],
    typer.Argument(metavar="NETWORK", help="Networks, as `[name=]source:name[@weights]`.", show_default=False),
]


def add(
    store: Store,
    networks: References,
    observe: Annotated[bool, typer.Option("--observe", help="They only look: a column each, and no row.")] = False,
    sweep: Sweep = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    shards_per_task: ShardsPerTask = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add networks to a run, and compute what is new.

    They join those of the sweep that was run last: they are inverted, look at all images, and all look at theirs.
    Nothing that the store has is computed again.

    For example:

    * `netsim add runs/demo mine=python:my_nets:net@w.safetensors`
    """
    options = {"workers": workers, "scheduler": scheduler, "tls": tls, "file": cluster, "credentials": credentials}
    changed = "observers" if observe else "networks"

    def grown(settings: dict[str, Any]) -> dict[str, Any]:
        added = [with_absolute_paths(network, os.getcwd()) for network in networks]
        return settings | {changed: [*settings[changed], *added]}

    _run_changed(
        store, sweep, grown, options | {"shards_per_task": shards_per_task}, debug, quiet=quiet, as_json=as_json
    )


def extend(
    store: Store,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Number of pairs in all.", metavar="N")],
    sweep: Sweep = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    shards_per_task: ShardsPerTask = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Extend a run by more pairs of images, which makes its errors smaller.

    Pair k is the same in a longer run, so only the new pairs are computed. Of a run that stops when its results are
    known (`pairs.until`), N is the most that it may use: if it stopped undecided, it continues.

    For example:

    * `netsim extend runs/demo --pairs 1024`
    """
    options = {"workers": workers, "scheduler": scheduler, "tls": tls, "file": cluster, "credentials": credentials}

    def grown(settings: dict[str, Any]) -> dict[str, Any]:
        before = settings["pairs"]["count"]
        if pairs < before:
            raise SettingsError(
                f"--pairs must be at least {before}, which {store} has, got {pairs}; "
                f"`netsim results {quote(store)} --pairs {pairs}` shows fewer"
            )
        return settings | {"pairs": settings["pairs"] | {"count": pairs}}

    _run_changed(
        store, sweep, grown, options | {"shards_per_task": shards_per_task}, debug, quiet=quiet, as_json=as_json
    )


def _run_changed(
    store: str, sweep: str | None, grown: Any, options: dict[str, Any], debug: bool, *, quiet: bool, as_json: bool
) -> None:
    """Run the settings of a sweep as `grown` changes them."""
    from flows.clusters.settings import resolve_cluster
    from netsim.settings import parse_settings
    from netsim.store.run import Run

    chosen_cluster = resolve_cluster(None, **options)
    use_credentials(chosen_cluster.credentials, debug)
    last = Run.open(store, sweep).sweep
    settings: SweepSettings = parse_settings(grown(last.given_settings.model_dump(mode="json")), origin=store)
    resume = f"netsim run --store {quote(store)}{cluster_options(chosen_cluster, options['file'])}"
    run_sweep(settings, store, chosen_cluster, resume, debug, label=last.label, quiet=quiet, as_json=as_json)


def score(
    store: Store,
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="The network, as `[name=]source:name@weights`.", show_default=False)
    ],
    sweep: Sweep = None,
    pairs: Pairs = None,
    credentials: Credentials = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let a network only look at a finished run: its column of both matrices, with intervals.

    Takes seconds and stores nothing, so the store may be read-only.

    For example:

    * `netsim score runs/demo mine=python:my_nets:net@w.safetensors`
    """
    from flows.cli import console, tables
    from netsim import score as scoring
    from netsim.store.layout import sets
    from netsim.store.run import Run
    from netsim.store.views import view

    use_credentials(credentials, debug)
    console.set_up(quiet=quiet, as_json=as_json)
    run = view(Run.open(store, sweep), pairs=pairs)
    with console.progress_bar("Looking at sets of images", len(sets(run.sweep))) as advance:
        result = scoring.score(run, with_absolute_paths(network, os.getcwd()), on_set=advance)
    if as_json:
        print(json.dumps(result.to_json(), indent=2, allow_nan=False))
        return
    tables.show_score(result)


def drop(
    store: Store,
    networks: Annotated[
        list[str] | None, typer.Argument(metavar="NETWORK", help="Networks by name.", show_default=False)
    ] = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="Forget this sweep too, by its name or id; repeatable.", metavar="NAME"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove networks from a store, with all that only they needed, or forget sweeps.

    A network that a sweep still shows is kept, unless that sweep is forgotten too.

    For example:

    * `netsim drop runs/demo mine --sweep demo`: drop a network and the sweeps called demo that show it
    """
    from flows.cli import console
    from netsim.store.drop import drop as remove
    from netsim.store.drop import plan_drop
    from netsim.store.run import Run

    if not networks and not sweeps:
        raise SettingsError("nothing to drop. Give networks, or a sweep with --sweep")
    use_credentials(credentials, debug)
    url = Run.open(store).url
    planned = plan_drop(url, networks or [], sweeps or [])
    count = len(planned.paths)
    parts = [f"network {name}" for name in planned.networks]
    parts += [f"sweep {sweep.label} ({sweep.id}) of {', '.join(sweep.settings.names)}" for sweep in planned.sweeps]
    console.set_up(as_json=as_json)
    for part in parts:
        console.progress.print(console.plain(f"drop {part}"), soft_wrap=True)
    if not yes:
        typer.confirm(f"Remove {count:,} files from {url}?", abort=True, err=as_json)
    remove(url, planned)
    if as_json:
        sweeps_dropped = [{"name": sweep.label, "id": sweep.id} for sweep in planned.sweeps]
        print(json.dumps({"networks": list(planned.networks), "sweeps": sweeps_dropped, "files": count}, indent=2))
        return
    console.console.print(f"{count:,} files removed", soft_wrap=True)


def list_(
    place: Annotated[
        str,
        typer.Argument(metavar="PLACE", help="Folder or bucket, as in `runs` or `s3://bucket/runs`."),
    ] = "runs",
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the runs below a folder or a bucket: their sweeps, state, size and age, and what they compare.

    For example:

    * `netsim list runs`
    * `netsim list s3://bucket --json`
    """
    from flows.cli import tables
    from netsim.results.listing import list_stores

    use_credentials(credentials, debug)
    stores = list_stores(place)
    if as_json:
        print(json.dumps([store.to_json() for store in stores], indent=2))
        return
    tables.show_stores(place, stores)


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Path or URL of a run.", show_default=False)],
    second: Annotated[
        str | None, typer.Argument(metavar="B", help="Path or URL of another run.", show_default="A")
    ] = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep", help="Sweep of A, then of B, by name or id; give twice.", metavar="NAME", show_default="run last"
        ),
    ] = None,
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two finished runs, or two sweeps of one run, on the networks that both have.

    Differences are paired where both are of the same pairs of images, which makes their errors small, or of the same
    targets with other seeds (pairs.seed_draw): then errors are also divided into targets and seeds.

    For example:

    * `netsim compare runs/published runs/fast`
    * `netsim compare runs/demo --sweep before --sweep after`
    """
    from flows.cli import tables
    from netsim.results.compared import compare_sweeps

    chosen = list(sweeps or [])
    if len(chosen) > 2 or (second is None and len(chosen) != 2):
        raise SettingsError("two runs must be compared. Give A and B, or A and two sweeps: --sweep NAME --sweep NAME")
    use_credentials(credentials, debug)
    one, other = _two_runs(first, second or first, chosen)
    compared = compare_sweeps(one, other)
    if as_json:
        print(json.dumps(compared.to_json(), indent=2, allow_nan=False))
        return
    tables.show_compared(compared, *(f"{run.url}, sweep {run.sweep.label} ({run.sweep.id})" for run in (one, other)))


def _two_runs(first: str, second: str, sweeps: list[str]) -> tuple["Run", "Run"]:
    from netsim.store.run import Run

    one, other = [*sweeps, None, None][:2]
    return Run.open(first, one), Run.open(second, other)
