"""The command line. Exit codes: 0 fine; 1 the run or the store is at fault; 2 the command line or the settings are."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from flows.clusters.settings import AnyCluster, chosen_cluster
from netsim.errors import NetsimError, SettingsError, printable
from netsim.references import NETWORK_FORMS
from netsim.settings import SweepSettings, parse_settings, read_settings, shipped_settings, shipped_sweeps

app = typer.Typer(
    name="netsim",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="How similar are trained networks, naturally and after inversion? Try `netsim demo` first.",
)

Store = Annotated[str, typer.Argument(help="path or URL of a run: `runs/demo`, `s3://bucket/run`", show_default=False)]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="path or URL where the run is kept", show_default=False)
]
Workers = Annotated[int | None, typer.Option(min=1, help="worker processes, one thread each; default: one a core")]
Scheduler = Annotated[
    str | None, typer.Option(help="a Dask scheduler's address, instead of workers here", show_default=False)
]
Tls = Annotated[
    str | None,
    typer.Option(
        help="for a scheduler at tls://: the folder of its certificates, as `netsim certificates` makes it",
        metavar="FOLDER",
        show_default=False,
    ),
]
ClusterFile = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="a YAML file with a group `cluster:`, which says where to execute: SLURM, Kubernetes, ...",
        metavar="FILE",
        show_default=False,
    ),
]
Credentials = Annotated[
    str | None,
    typer.Option(
        help="for an s3:// store: a block of type AWS Credentials on the Prefect server",
        metavar="BLOCK",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON for programs")]
Debug = Annotated[bool, typer.Option("--debug", help="show the whole traceback of an error")]


@app.command()
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


def _networks() -> str:
    """For --help: how networks are named."""
    lines = [f"* `{form}`: {description}" for form, description in NETWORK_FORMS.values()]
    return "\n".join(["Networks are named by reference:\n", *lines])


@app.command(epilog=_networks())
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
        _use(where.credentials, debug)
        chosen = Run.open(store).settings
    else:
        values = read_settings(settings, set_ or ())
        said = values.pop("cluster", None)
        where = chosen_cluster(None if said is None else (settings, said), **asked)
        chosen = parse_settings(values, origin=settings)
        store = f"runs/{Path(settings).stem}" if store is None else store
        _use(where.credentials, debug)
    again = f"netsim run --store {quote(store)}{_the_same(where, cluster or settings)}"
    _run(chosen, store, where, again, debug)


@app.command()
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
    _quiet(debug)
    from flows import tables
    from flows.clusters.environment import ENVIRONMENT, MODULES
    from flows.clusters.runner import workers_at_most
    from flows.clusters.settings import Slurm
    from flows.compare import LOOKS
    from flows.console import progress_bar
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
    _use(where.credentials, debug)
    device = reckoned.device_said(tflops) if tflops else reckoned.device_of(Run.open(like)) if like else None
    size = where.shards_per_task
    with progress_bar("Networks measured", len(chosen.names)) as advance:
        found = reckoned.estimate(
            chosen,
            store or f"runs/{Path(settings).stem}",
            workers=workers or workers_at_most(where),
            shards_per_task={"draw": size, "invert": size, "embed": LOOKS * size},
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


@app.command(epilog=_networks())
def convert(
    network: Annotated[
        str, typer.Argument(help="whose weights these are: `robust:resnet50_l2_eps3`", show_default=False)
    ],
    checkpoint: Annotated[
        str | None, typer.Argument(help="the pickled file; of a robust: network it is downloaded", show_default=False)
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="the safetensors file to write", show_default=False)
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="the hash that the checkpoint must have", metavar="HEX", show_default=False)
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="read the pickle, in a process that runs nothing that is in it")
    ] = False,
    debug: Debug = False,
) -> None:
    """Make safetensors of a pickled checkpoint, once: sweeps read nothing else.

    Takes what the robustness library saves (and so the networks of Salman et al.), and plain state dicts. Tensors that
    are missing, left over or of another shape are named, and nothing is written then.
    """
    from flows import console
    from netsim.networks.convert import convert as make

    made = make(network, checkpoint, output=output, sha256=sha256, allow_pickle=allow_pickle)
    console.console.print(f"{made.path}\nname it in a sweep as {made.reference}", soft_wrap=True)


@app.command()
def status(
    store: Store,
    throughput: Annotated[
        bool, typer.Option("--throughput", help="images a second of every worker; opens every record")
    ] = False,
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """How far a run is: shards done and missing, per stage and network; rate; time left."""
    from flows import console
    from netsim.store import status as progress
    from netsim.store import throughput as speed
    from netsim.store.run import Run

    _use(credentials, debug)
    opened = Run.open(store)
    found = speed.throughput(opened) if throughput else []
    if as_json:
        content: dict[str, Any] = {"run": opened.digest}
        content |= {"stages": [asdict(stage) for stage in progress.status(opened)]}
        content |= {"images": {split: found.model_dump() for split, found in progress.unreadable(opened).items()}}
        content |= {"throughput": [one.to_json() for one in found]} if throughput else {}
        print(json.dumps(content, indent=2))
        return
    console.show_status(opened)
    console.show_throughput(found)


@app.command()
def results(
    store: Store,
    compare: Annotated[
        str | None, typer.Option(help="published matrices to hold the run against: jones2022", metavar="NAME")
    ] = None,
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Both matrices, their means with intervals, and the inversion losses of a finished run."""
    from flows import tables
    from netsim.results import published
    from netsim.results.as_json import to_json
    from netsim.results.measured import load_measured, measured_json
    from netsim.results.results import load_results
    from netsim.store.run import Run

    reference = published.published_matrices(compare) if compare else None
    _use(credentials, debug)
    run = Run.open(store)
    found, measured = load_results(run), load_measured(run)
    held = published.compare(found, reference) if reference else None
    if as_json:
        content = to_json(found) | {"measures": measured_json(measured)}
        content |= {"compare": published.comparison_json(held)} if held else {}
        print(json.dumps(content, indent=2, allow_nan=False))
        return
    tables.show_results(found)
    if measured:
        tables.show_measured(measured)
    if held:
        tables.show_comparison(held)


@app.command()
def verify(
    store: Store,
    repair: Annotated[bool, typer.Option("--repair", help="have the next run compute shards at fault again")] = False,
    sample: Annotated[int, typer.Option(min=0, help="images of each network whose loss is measured again")] = 8,
    credentials: Credentials = None,
    debug: Debug = False,
) -> None:
    """Read everything back against its checksums and measure some losses again; exit code 1 if anything is off."""
    from flows import console
    from netsim import verify as check
    from netsim.store.run import Run

    _use(credentials, debug)
    opened = Run.open(store)
    total = len(check.committed(opened))
    with console.progress_bar("Shards read back", total) as advance:
        faults = check.verify(opened, sample=sample, repair=repair, on_shard=advance)
    for fault in faults:
        console.errors.print(console.plain(str(fault)), soft_wrap=True)
    if not faults:
        console.console.print(f"{total:,} shards are as they were committed", soft_wrap=True)
        return
    if repair:
        mended = [fault for fault in faults if fault.mends]
        shards = {(fault.stage, fault.name, fault.shard) for fault in mended if fault.shard is not None}
        documents = len({fault.name for fault in mended if fault.shard is None})
        again = f"`netsim run --store {quote(opened.url)}` computes them again"
        if documents:
            console.errors.print(f"{documents:,} documents written again", soft_wrap=True)
        if shards:
            console.errors.print(f"{len(shards):,} of {total:,} shards removed; {again}", soft_wrap=True)
    raise typer.Exit(1)


@app.command()
def measure(
    store: Annotated[str | None, typer.Argument(help="path or URL of a run", show_default=False)] = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MEASURE]...", help="names, or `module:function` of your own; none: list them"),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    debug: Debug = False,
) -> None:
    """Other measures than CKA for every cell of both matrices, with errors and null values, on what a run has stored.

    A killed one goes on when the same command is given again; what is done is never computed again.
    """
    from flows import tables
    from netsim.results.measured import load_measured
    from netsim.stages.measure import measure_stage
    from netsim.store.run import Run
    from tasks.prepare import prepare_measures

    if store is None or not names:
        tables.show_measures()
        return
    where = chosen_cluster(None, workers=workers, scheduler=scheduler, tls=tls, file=cluster, credentials=credentials)
    _use(where.credentials, debug)
    opened = Run.open(prepare_measures(store, names))
    stage = measure_stage(names)
    if stage.missing(opened):
        with _resumable(), _watched(opened, (stage,), debug):
            from flows.measure import measure as flow

            flow(opened.url, names, where)
    else:
        _say_done(opened, debug)
    tables.show_measured({name: found for name, found in load_measured(opened).items() if name in names})


@app.command()
def layers(
    store: Store,
    networks: Annotated[list[str], typer.Argument(help="two networks of the run; one twice: its own layers")],
    layer: Annotated[
        list[str] | None, typer.Option("--layer", metavar="PATTERN", help="names as in `layer?`, `features.*`")
    ] = None,
    activations: Annotated[
        str | None, typer.Option(help="pooled (mean over places) or flattened (every place)", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for the heatmap and the table")] = Path(
        "layers"
    ),
    workers: Workers = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    debug: Debug = False,
) -> None:
    """Layers of two networks against each other, on natural images and on those inverted through either.

    For example: `netsim layers runs/demo resnet18 vgg --layer "layer?" --layer "features.*" --activations pooled`
    """
    from flows import console
    from netsim.report.page import write_layers
    from netsim.results.layers import find_spec
    from netsim.stages.layers import layer_stage
    from netsim.storage.s3 import explained
    from netsim.store.run import Run
    from tasks.prepare import prepare_layers

    if not layer or activations is None:
        raise SettingsError('say which layers and how, as in --layer "layer?" --activations pooled (or flattened)')
    where = chosen_cluster(None, workers=workers, scheduler=scheduler, tls=tls, file=cluster, credentials=credentials)
    _use(where.credentials, debug)
    url, key = prepare_layers(store, networks, layer, activations)
    opened = Run.open(url)
    spec = find_spec(opened, key)
    stage = layer_stage(spec)
    if stage.missing(opened):
        with _resumable(), _watched(opened, (stage,), debug):
            from flows.layers import layers as flow

            flow(url, networks, layer, activations, where)  # type: ignore[call-overload]
    else:
        _say_done(opened, debug)
    with explained(str(output)):
        written = write_layers(opened, spec, output)
    console.console.print("\n".join(str(path) for path in written), soft_wrap=True)


@app.command()
def report(
    store: Store,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write into")] = Path("report"),
    credentials: Credentials = None,
    debug: Debug = False,
) -> None:
    """Write the report of a finished run: one self-contained HTML page, figures as PNG and SVG, tables as CSV."""
    from flows import console
    from netsim.report.page import write_report
    from netsim.results.gallery import gallery
    from netsim.results.results import load_results
    from netsim.storage.s3 import explained
    from netsim.store.run import Run

    _use(credentials, debug)
    opened = Run.open(store)
    with explained(str(output)):
        write_report(load_results(opened), gallery(opened), output, settings_yaml=opened.settings.to_yaml())
    console.console.print(f"report: {output / 'report.html'}", soft_wrap=True)


@app.command()
def certificates(
    folder: Annotated[Path, typer.Argument(help="a new one, or an empty one")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="how long they are valid")] = 365,
    debug: Debug = False,
) -> None:
    """Make certificates with which a Dask scheduler, its workers and sweeps talk encrypted, and with nobody else.

    Whoever can read `key.pem` can have the scheduler and its workers run any code.
    """
    from flows import console
    from flows.clusters.certificates import make_certificates

    until = make_certificates(folder, days=days)
    console.console.print(f"{folder}: ca.pem, cert.pem, key.pem, valid until {until:%Y-%m-%d}", soft_wrap=True)


def _the_same(cluster: AnyCluster, file: str | None) -> str:
    """Options that say this cluster again; `file` is where it is said if it is no other."""
    said = f" --credentials {quote(cluster.credentials)}" if cluster.credentials else ""
    if cluster.kind == "scheduler":
        said += f" --scheduler {quote(cluster.address)}" + (f" --tls {quote(cluster.tls)}" if cluster.tls else "")
    elif cluster.kind != "local" and file:
        said += f" --cluster {quote(file)}"
    return said


def _use(credentials: str | None, debug: bool) -> None:
    """Before the store is opened. Blocks are kept by a Prefect server, so there must be one now."""
    if credentials is None:
        return
    _quiet(debug)
    from flows.server.credentials import use_block
    from flows.server.server import prefect_server

    with prefect_server():
        use_block(credentials)


def _run(settings: SweepSettings, store: str, cluster: AnyCluster, again: str, debug: bool) -> None:
    """Prepare, execute what is missing while bars follow the store, and show what was found."""
    from flows import console, tables
    from netsim.results.results import load_results
    from netsim.store import status as progress
    from netsim.store.run import Run
    from netsim.store.stages import STAGES
    from tasks.prepare import prepare

    opened = Run.open(prepare(settings, store))
    console.console.print(f"run {opened.digest} in {opened.url}", soft_wrap=True)
    if not all(stage.finished for stage in progress.status(opened)):
        try:
            with _watched(opened, STAGES, debug):
                from flows.sweep import sweep

                sweep(settings, opened.url, cluster)
        except KeyboardInterrupt:
            _say_stopped(opened, again)
            raise typer.Exit(130) from None
    else:
        _say_done(opened, debug)
    tables.show_results(load_results(opened))
    console.console.print(f"report: {opened.files.place('report/report.html')}", soft_wrap=True)


def _say_done(opened: Any, debug: bool) -> None:
    """Nothing is missing. Whoever computed the last of it may have been killed before Prefect heard that it ended."""
    _quiet(debug)
    from flows import console
    from flows.server.server import prefect_server_that_is_up
    from tasks.prefect_runs import close_the_dead

    with prefect_server_that_is_up() as up:
        if up:
            close_the_dead(opened.url)
    console.console.print("everything is done already; nothing was computed")


@contextmanager
def _watched(opened: Any, units: Sequence[Any], debug: bool) -> Iterator[None]:
    """For a flow: with a Prefect server, and bars that follow the store."""
    _quiet(debug)
    from flows import console
    from flows.server.server import prefect_server

    with prefect_server() as ui:
        console.console.print(f"watch it at {ui} (the server stays; `prefect server stop` ends it)", soft_wrap=True)
        with console.progress_bars(opened, units), ctrl_c_stays_ctrl_c():
            yield


@contextmanager
def ctrl_c_stays_ctrl_c() -> Iterator[None]:
    """Libraries make errors of their own of a KeyboardInterrupt that meets them in the middle of something."""
    from tasks.interrupts import interrupted, taken_for_dead

    before = signal.getsignal(signal.SIGINT)

    def press(*_: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    if before is signal.default_int_handler:  # and not one that a shell had ignored
        signal.signal(signal.SIGINT, press)
    try:
        yield
    except Exception as error:
        if interrupted.is_set() and not taken_for_dead.is_set():  # which has an error of its own
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        interrupted.clear()  # another sweep of this process is none of its business


@contextmanager
def _resumable() -> Iterator[None]:
    from flows import console

    try:
        yield
    except KeyboardInterrupt:
        console.errors.print("\nstopped. Nothing done is lost; the same command goes on from here.")
        raise typer.Exit(130) from None


def _say_stopped(opened: Any, again: str) -> None:
    from flows import console
    from netsim.store.status import status
    from tasks.interrupts import cancelled_in_prefect

    how = "cancelled in Prefect" if cancelled_in_prefect.is_set() else "stopped"
    done = ", ".join(f"{stage.name} {stage.done}/{stage.total}" for stage in status(opened))
    console.errors.print(f"\n{how}. Done: {done}.\nNothing done is lost; `{again}` goes on from here.", soft_wrap=True)


def _quiet(debug: bool) -> None:
    """Logs go to the Prefect UI; this terminal is for progress, and with --debug for logs too. Before prefect loads."""
    from flows.server.offline import OFFLINE

    os.environ.update({name: value for name, value in OFFLINE.items() if name not in os.environ})
    if not debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # workers inherit it


def main() -> None:
    """Run a command; turn what a user can cause into one or two lines and an exit code."""
    debug = "--debug" in sys.argv
    try:
        app(standalone_mode=True)
    except NetsimError as error:
        if debug:
            raise
        print(f"netsim: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        said = f"netsim: unexpected {type(error).__name__}: {error}"
        print(f"{printable(said)}\n--debug shows where; please report it", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
