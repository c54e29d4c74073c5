"""`netsim plan`: estimate what a sweep takes."""

import json
import os
from pathlib import Path
from typing import Annotated

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
    shards_per_task: ShardsPerTask = None,
    set_: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Estimate the time, memory and storage of a sweep without running it.

    Applies every check of `netsim run` first: references, files, classes, space and permission in the store. Nothing
    is computed or stored. The speed is measured on this machine, which takes seconds per network; give `--like` or
    `--tflops` to plan for another device.

    For example:

    * `netsim plan mine.yaml`: measure on this machine
    * `netsim plan mine.yaml --cluster slurm.yaml --like runs/pilot --price 2`: plan for the device of a pilot run
    """
    load_orchestrators(debug)
    from flows.cli import tables
    from flows.cli.console import progress_bar, set_up
    from flows.clusters.environment import ENVIRONMENT, MODULES
    from flows.clusters.runner import max_workers
    from flows.clusters.settings import Slurm, resolve_cluster
    from flows.compare import EMBED_FACTOR
    from netsim.planning import estimate as planning
    from netsim.settings import locate, parse_settings, read_settings
    from netsim.store.run import Run

    if like is not None and tflops is not None:
        raise SettingsError("--like and --tflops exclude each other: both set the speed of the device. Give only one")
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
    device = (
        planning.device_from_tflops(tflops) if tflops else planning.device_from_run(Run.open(like)) if like else None
    )
    block = chosen_cluster.shards_per_task
    set_up(quiet=quiet, as_json=as_json)
    with progress_bar("Measuring networks", len(sweep_settings.members) + len(sweep_settings.observing)) as advance:
        estimate = planning.estimate(
            sweep_settings,
            store or f"runs/{Path(settings).stem}",
            workers=workers or max_workers(chosen_cluster),
            shards_per_task={"draw": block, "invert": block, "embed": EMBED_FACTOR * block},
            device=device,
            environment=ENVIRONMENT,
            imports=MODULES,
            on_network=advance,
        )
    if isinstance(chosen_cluster, Slurm):
        planning.require_time(estimate, chosen_cluster.worker_lifetime)
    if as_json:
        cost = {} if price is None else {"cost": (estimate.device_seconds * (price / 3600))._asdict()}
        print(json.dumps(estimate.to_json() | cost, indent=2))
        return
    tables.show_estimate(estimate, price)
