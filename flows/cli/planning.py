"""`netsim plan`: estimate what a sweep takes."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import (
    WHERE,
    ClusterFile,
    Credentials,
    Debug,
    Json,
    Quiet,
    Set,
    Settings,
    ShardsPerTask,
    StoreOption,
)
from flows.cli.orchestrators import load_orchestrators
from flows.cli.session import use_credentials
from netsim.errors import SettingsError

if TYPE_CHECKING:
    from flows.clusters.settings import AnyCluster
    from netsim.settings import SweepSettings


def plan(
    settings: Settings,
    store: StoreOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of workers.",
            metavar="N",
            show_default="the maximum of the cluster",
            rich_help_panel=WHERE,
        ),
    ] = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    like: Annotated[
        str | None,
        typer.Option(help="Take the speed from this earlier run on the same kind of device.", metavar="STORE"),
    ] = None,
    tflops: Annotated[
        str | None,
        typer.Option(help="Assume this speed of inversion, in TFLOP/s: `9`, or `6-12`.", metavar="LOW[-HIGH]"),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price per device-hour, in any currency.", metavar="PRICE")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only count shards: no network is built, and no time estimated.")
    ] = False,
    shards_per_task: ShardsPerTask = None,
    set_: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Estimate the time, memory and storage of a sweep without running it.

    Applies every check of `netsim run` first: references, files, classes, space and permission in the store. Nothing
    is computed or stored. The speed is measured on this machine, which takes a second or more per network; give
    `--like` or `--tflops` to plan for another device, or `--quick` to see only what is new.

    For example:

    * `netsim plan mine.yaml`: measure on this machine
    * `netsim plan mine.yaml --quick`: count what the store has, and what is missing and why
    * `netsim plan mine.yaml --cluster slurm.yaml --like runs/pilot --price 2`: plan for the device of a pilot run
    """
    from flows.cli.console import set_up
    from flows.clusters.settings import resolve_cluster
    from netsim.settings import locate, parse_settings, read_settings

    if like is not None and tflops is not None:
        raise SettingsError("--like and --tflops exclude each other: both set the speed of the device. Give only one")
    if quick and (like is not None or tflops is not None or price is not None):
        raise SettingsError("--quick estimates no time, so --like, --tflops and --price have no use. Omit --quick")
    values = locate(read_settings(settings, set_ or ()), os.getcwd())
    chosen_cluster = resolve_cluster(
        values.pop("cluster", None),
        origin=settings,
        file=cluster,
        credentials=credentials,
        shards_per_task=shards_per_task,
    )
    sweep_settings = parse_settings(values, origin=settings)
    use_credentials(chosen_cluster.credentials, debug)
    set_up(quiet=quiet, as_json=as_json)
    store = store or f"runs/{Path(settings).stem}"
    if quick:
        _show_count(sweep_settings, store, chosen_cluster, as_json=as_json)
    else:
        _show_estimate(
            sweep_settings, store, chosen_cluster, workers, like, tflops, price, as_json=as_json, debug=debug
        )


def _show_count(settings: "SweepSettings", store: str, cluster: "AnyCluster", *, as_json: bool) -> None:
    from flows.cli.tables import show_count
    from netsim.planning.count import count_work

    counts = count_work(settings, store, shards_per_task=cluster.shards_by_stage)
    if as_json:
        print(json.dumps({"stages": [asdict(count) for count in counts]}, indent=2))
    else:
        show_count(counts)


def _show_estimate(
    settings: "SweepSettings",
    store: str,
    cluster: "AnyCluster",
    workers: int | None,
    like: str | None,
    tflops: str | None,
    price: float | None,
    *,
    as_json: bool,
    debug: bool,
) -> None:
    load_orchestrators(debug)
    from flows.cli.console import progress_bar
    from flows.cli.tables import show_estimate
    from flows.clusters.environment import ENVIRONMENT, MODULES
    from flows.clusters.runner import max_workers
    from flows.clusters.settings import Slurm
    from netsim.planning import estimate as planning
    from netsim.store.run import Run

    device = (
        planning.device_from_tflops(tflops) if tflops else planning.device_from_run(Run.open(like)) if like else None
    )
    with progress_bar("Measuring networks", len(settings.members) + len(settings.observing)) as advance:
        estimate = planning.estimate(
            settings,
            store,
            workers=workers or max_workers(cluster),
            shards_per_task=cluster.shards_by_stage,
            device=device,
            environment=ENVIRONMENT,
            imports=MODULES,
            on_network=advance,
        )
    if isinstance(cluster, Slurm):
        planning.require_time(estimate, cluster.worker_lifetime)
    if as_json:
        cost = {} if price is None else {"cost": (estimate.device_seconds * (price / 3600))._asdict()}
        print(json.dumps(estimate.to_json() | cost, indent=2))
        return
    show_estimate(estimate, price)
