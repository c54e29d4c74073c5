"""netsim demo, netsim run: start a sweep, or resume one."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from flows.cli.options import ClusterFile, Credentials, Debug, Scheduler, StoreOption, Tls, Workers
from flows.cli.session import cluster_options, report_nothing_to_do, report_stopped, use_credentials, watched
from flows.clusters.settings import AnyCluster, chosen_cluster
from netsim.errors import SettingsError
from netsim.settings import SweepSettings, parse_settings, read_settings, shipped_settings, shipped_sweeps


def demo(
    store: Annotated[str, typer.Option(help="path or URL where the run is kept")] = "runs/demo",
    workers: Workers = None,
    debug: Debug = False,
) -> None:
    """Compare nine small networks on images that come with netsim: train, invert, report; minutes on a laptop."""
    _run(
        shipped_settings("demo"),
        store,
        chosen_cluster(None, workers=workers),
        f"netsim demo --store {quote(store)}",
        debug,
    )


def run(
    settings: Annotated[
        str | None,
        typer.Argument(help="a YAML file, or the name of a sweep that comes with netsim", show_default=False),
    ] = None,
    store: StoreOption = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    shards_per_task: Annotated[
        int | None, typer.Option(min=1, help="shards one task run works through; default: 4", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a setting: `--set pairs.count=64`")
    ] = None,
    debug: Debug = False,
) -> None:
    """Run a sweep, or go on with one: what the store holds is never computed again.

    `netsim run SETTINGS.yaml` keeps its results in `runs/<name of the file>`; `netsim run --store PLACE` goes on with
    the settings kept there.
    """
    asked: dict[str, Any] = {
        "workers": workers,
        "scheduler": scheduler,
        "tls": tls,
        "file": cluster,
        "credentials": credentials,
        "shards_per_task": shards_per_task,
    }
    if settings is None and (store is None or set_):
        known = ", ".join(sorted(shipped_sweeps()))
        raise SettingsError(
            f"give a settings file, or the name of one that comes with netsim ({known}), or --store of a run"
        )
    if settings is None:
        from netsim.store.run import Run

        assert store is not None
        where = chosen_cluster(None, **asked)
        use_credentials(where.credentials, debug)
        chosen = Run.open(store).settings
    else:
        values = read_settings(settings, set_ or ())
        said = values.pop("cluster", None)
        where = chosen_cluster(None if said is None else (settings, said), **asked)
        chosen = parse_settings(values, origin=settings)
        store = f"runs/{Path(settings).stem}" if store is None else store
        use_credentials(where.credentials, debug)
    again = f"netsim run --store {quote(store)}{cluster_options(where, cluster or settings)}"
    _run(chosen, store, where, again, debug)


def _run(settings: SweepSettings, store: str, cluster: AnyCluster, again: str, debug: bool) -> None:
    """Prepare, execute what is missing while bars follow the store, and show what was found."""
    from flows.cli import console, tables
    from netsim.results.results import load_results
    from netsim.store import status as progress
    from netsim.store.run import Run
    from netsim.store.stages import STAGES
    from tasks.prepare import prepare

    opened = Run.open(prepare(settings, store))
    console.console.print(f"run {opened.digest} in {opened.url}", soft_wrap=True)
    if not all(stage.finished for stage in progress.status(opened)):
        try:
            with watched(opened, STAGES, debug):
                from flows.sweep import sweep

                sweep(settings, opened.url, cluster)
        except KeyboardInterrupt:
            report_stopped(opened, again)
            raise typer.Exit(130) from None
    else:
        report_nothing_to_do(opened, debug)
    tables.show_results(load_results(opened))
    console.console.print(f"report: {opened.files.place('report/report.html')}", soft_wrap=True)
