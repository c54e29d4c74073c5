"""netsim plan: what a sweep will take."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ClusterFile, Credentials, Debug, Json, StoreOption
from flows.cli.session import silence_logs, use_credentials
from flows.clusters.settings import chosen_cluster
from netsim.errors import SettingsError
from netsim.settings import parse_settings, read_settings


def plan(
    settings: Annotated[
        str, typer.Argument(help="a YAML file, or the name of a sweep that comes with netsim", show_default=False)
    ],
    store: StoreOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="that share the work; default: as many as the cluster has at most")
    ] = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    like: Annotated[
        str | None,
        typer.Option(help="a run whose device is the one to plan for: hours go by its records", metavar="STORE"),
    ] = None,
    tflops: Annotated[
        str | None,
        typer.Option(help="or what inverting reaches on that device, TFLOP/s: `9`, or `6-12`", metavar="LOW[-HIGH]"),
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="of an hour of one device, in any currency")] = None,
    shards_per_task: Annotated[int | None, typer.Option(min=1, help="shards one task run works through")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a setting: `--set pairs.count=64`")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """What a sweep will take, before it is run: shards, FLOPs, bytes, hours, memory. Computes and keeps nothing.

    Everything a run would trip over ends this one too: references, files, classes, a store without room or permission.
    Hours are measured here, in seconds a network; for another device, `--like` or `--tflops` says how fast it is.
    """
    silence_logs(debug)
    from flows.cli import tables
    from flows.cli.console import progress_bar
    from flows.clusters.environment import ENVIRONMENT, MODULES
    from flows.clusters.runner import workers_at_most
    from flows.clusters.settings import Slurm
    from flows.compare import EMBED_FACTOR
    from netsim.planning import estimate as reckoned
    from netsim.store.run import Run

    if like is not None and tflops is not None:
        raise SettingsError("--like and --tflops each say how fast the device is; give one of them")
    values = read_settings(settings, set_ or ())
    said = values.pop("cluster", None)
    where = chosen_cluster(
        None if said is None else (settings, said),
        file=cluster,
        credentials=credentials,
        shards_per_task=shards_per_task,
    )
    chosen = parse_settings(values, origin=settings)
    use_credentials(where.credentials, debug)
    device = reckoned.device_said(tflops) if tflops else reckoned.device_of(Run.open(like)) if like else None
    size = where.shards_per_task
    with progress_bar("Networks measured", len(chosen.names)) as advance:
        found = reckoned.estimate(
            chosen,
            store or f"runs/{Path(settings).stem}",
            workers=workers or workers_at_most(where),
            shards_per_task={"draw": size, "invert": size, "embed": EMBED_FACTOR * size},
            device=device,
            environment=ENVIRONMENT,
            imports=MODULES,
            on_network=advance,
        )
    if isinstance(where, Slurm):
        reckoned.require_time(found, where.lives)
    if as_json:
        cost = {} if price is None else {"cost": (found.device_seconds * (price / 3600))._asdict()}
        print(json.dumps(found.to_json() | cost, indent=2))
        return
    tables.show_estimate(found, price)
