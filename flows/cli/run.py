"""`netsim demo` and `netsim run`: start a sweep, or resume one."""

import json
import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import (
    ClusterFile,
    Credentials,
    Debug,
    Json,
    Quiet,
    Scheduler,
    Set,
    ShardsPerTask,
    StoreOption,
    Tls,
    Workers,
)
from flows.cli.session import (
    cluster_options,
    exit_code,
    flow_session,
    report_nothing_to_do,
    report_stopped,
    use_credentials,
)
from netsim.errors import SettingsError

if TYPE_CHECKING:
    from flows.clusters.settings import AnyCluster
    from netsim.settings import SweepSettings
    from netsim.store.run import Run


def demo(
    store: Annotated[str, typer.Option(help="Path or URL to store the run at.", metavar="STORE")] = "runs/demo",
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train, invert and compare nine small networks on bundled images.

    Takes minutes on a laptop and needs no GPU, no account and no network. Run it again to resume.

    For example:

    * `netsim demo`: into `runs/demo`
    * `netsim demo --store elsewhere --workers 2`
    """
    from flows.clusters.settings import resolve_cluster
    from netsim.settings import shipped_settings

    run_sweep(
        shipped_settings("demo"),
        store,
        resolve_cluster(None, workers=workers),
        f"netsim demo --store {quote(store)}",
        debug,
        label="demo",
        quiet=quiet,
        as_json=as_json,
    )


def run(
    settings: Annotated[
        str | None,
        typer.Argument(
            help="YAML file with the settings, or the name of a sweep shipped with netsim.",
            metavar="SETTINGS",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    shards_per_task: ShardsPerTask = None,
    set_: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Start a sweep, or resume one.

    The store records what is complete, and nothing in it is computed twice: to resume a sweep, run the same command
    again, or give `--store` alone to reuse the settings saved there. Settings with more networks, observers or pairs
    compute only what is new.

    For example:

    * `netsim run mine.yaml`: run the sweep of a settings file in `runs/mine`
    * `netsim run mine.yaml --set inversion.iterations=500 --store runs/short`: change a setting
    * `netsim run mine.yaml --cluster slurm.yaml`: run it on SLURM
    * `netsim run --store runs/mine`: resume with the saved settings
    """
    from flows.clusters.settings import resolve_cluster
    from netsim.settings import locate, parse_settings, read_settings, shipped_sweeps

    options: dict[str, Any] = {
        "workers": workers,
        "scheduler": scheduler,
        "tls": tls,
        "file": cluster,
        "credentials": credentials,
        "shards_per_task": shards_per_task,
    }
    if settings is None and (store is None or set_):
        shipped = ", ".join(sorted(shipped_sweeps()))
        raise SettingsError(
            f"no settings given. Give a YAML file, a sweep shipped with netsim ({shipped}), or --store alone to resume"
        )
    if settings is None:
        from netsim.store.run import Run

        assert store is not None
        chosen_cluster = resolve_cluster(None, **options)
        use_credentials(chosen_cluster.credentials, debug)
        last = Run.open(store).sweep
        sweep_settings, label = last.given_settings, last.label
    else:
        values = locate(read_settings(settings, set_ or ()), os.getcwd())
        chosen_cluster = resolve_cluster(values.pop("cluster", None), origin=settings, **options)
        sweep_settings = parse_settings(values, origin=settings)
        label = Path(settings).stem
        store = f"runs/{label}" if store is None else store
        use_credentials(chosen_cluster.credentials, debug)
    resume = f"netsim run --store {quote(store)}{cluster_options(chosen_cluster, cluster or settings)}"
    run_sweep(sweep_settings, store, chosen_cluster, resume, debug, label=label, quiet=quiet, as_json=as_json)


def run_sweep(
    settings: "SweepSettings",
    store: str,
    cluster: "AnyCluster",
    resume: str,
    debug: bool,
    *,
    label: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Compute what is missing while progress bars follow the store, then print the results."""
    from flows.cli import console, tables
    from netsim.store import status as progress
    from netsim.store.layout import SUMMARY, report_path
    from netsim.store.stages import REPORT, STAGES
    from tasks.prepare import checked, prepare

    console.set_up(quiet=quiet, as_json=as_json)
    opened = prepare(settings, store, label, download=cluster.kind == "local")
    console.progress.print(f"run {opened.digest} at {opened.url}", soft_wrap=True)
    complete = all(stage.finished for stage in progress.status(opened))
    if complete:
        report_nothing_to_do(opened, debug)
    else:
        try:
            with flow_session(opened, STAGES, cluster, debug), checked(opened):
                from flows.sweep import sweep

                sweep(settings, opened.url, cluster, label)
        except KeyboardInterrupt as error:
            report_stopped(opened, resume)
            raise typer.Exit(exit_code(error)) from None
        opened = opened.latest()
    if as_json:
        print_results_json(opened)
    elif complete:
        summary = opened.read_file(opened.record(REPORT.name, opened.sweep.id), report_path(opened.sweep.id, SUMMARY))
        tables.show_summary(summary.decode())
        console.progress.print(f"tables: netsim results {quote(opened.url)}", soft_wrap=True)
    else:
        from netsim.results.results import load_results

        tables.show_results(load_results(opened))
    report = opened.files.place(report_path(opened.sweep.id, "report.html"))
    console.progress.print(f"report: {report}", soft_wrap=True)


def print_results_json(opened: "Run") -> None:
    """Print the results of a finished run as `netsim results --json` does."""
    from netsim.results.as_json import to_json
    from netsim.results.measured import load_measured, measured_json
    from netsim.results.results import load_results

    content = to_json(load_results(opened)) | {"measures": measured_json(load_measured(opened))}
    print(json.dumps(content, indent=2, allow_nan=False))
