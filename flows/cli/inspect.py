"""`netsim status`, `results`, `verify`, `report` and `study`: read a store."""

import json
from collections.abc import Callable
from dataclasses import asdict
from shlex import quote
from typing import Annotated, Any

import typer

from flows.cli.options import (
    Credentials,
    Debug,
    EstimatorOption,
    Json,
    Networks,
    Order,
    Pairs,
    Quiet,
    Store,
    Sweep,
    names,
)
from flows.cli.session import describe_flow, use_credentials


def status(
    store: Store,
    throughput: Annotated[
        bool, typer.Option("--throughput", help="Show images per second of every worker. Reads every record.")
    ] = False,
    sweep: Sweep = None,
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the progress of a run: shards done and missing, rate, time left, whether a flow is running, and failures.

    For example:

    * `netsim status runs/demo`
    * `netsim status runs/demo --throughput`
    """
    from flows.cli import console
    from netsim.store import status as progress
    from netsim.store import throughput as speed
    from netsim.store.quarantine import quarantined
    from netsim.store.run import Run
    from netsim.store.stages import unit_label

    use_credentials(credentials, debug)
    opened = Run.open(store, sweep)
    workers = speed.throughput(opened) if throughput else []
    if as_json:
        content: dict[str, Any] = {"run": opened.digest, "sweep": opened.sweep.id, "name": opened.sweep.label}
        content |= {"stages": [stage.to_json() for stage in progress.status(opened)]}
        content |= {"images": {split: checked.model_dump() for split, checked in progress.unreadable(opened).items()}}
        content |= {"failures": [{"unit": unit_label(unit), **why} for unit, why in quarantined(opened).items()]}
        content |= {"flow": describe_flow(opened.url, debug)[1]}
        content |= {"throughput": [worker.to_json() for worker in workers]} if throughput else {}
        print(json.dumps(content, indent=2))
        return
    console.show_status(opened)
    console.say(describe_flow(opened.url, debug)[0])
    console.show_throughput(workers)


def results(
    store: Store,
    compare: Annotated[
        str | None, typer.Option(help="Compare with published matrices: `jones2022`.", metavar="NAME")
    ] = None,
    sweep: Sweep = None,
    networks: Networks = None,
    pairs: Pairs = None,
    order: Order = "given",
    estimator: EstimatorOption = "unbiased",
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the results of a run: both matrices, means with intervals, and losses.

    Of a run that is not finished, shows the rows that are complete and what is missing, and exits with code 1.

    For example:

    * `netsim results runs/demo`
    * `netsim results runs/demo --networks resnet18,vgg --pairs 256`
    * `netsim results runs/demo --order clustered --estimator biased`
    * `netsim results runs/demo --json > demo.json`
    * `netsim results runs/imagenet-nine --compare jones2022`
    """
    from flows.cli import console, tables
    from netsim.errors import UnfinishedError
    from netsim.results import published
    from netsim.results.as_json import to_json
    from netsim.results.measured import load_measured, measured_json
    from netsim.results.order import check_order, ordered
    from netsim.results.partial import load_partial
    from netsim.results.results import load_results
    from netsim.similarity.hsic import validate_estimator
    from netsim.storage.concurrency import concurrently
    from netsim.store.run import Run
    from netsim.store.views import view

    reference = published.published_matrices(compare) if compare else None
    check_order(order)
    matrices_by = validate_estimator(estimator)
    use_credentials(credentials, debug)
    run = view(Run.open(store, sweep), names(networks), pairs)
    load: list[Callable[[Run], Any]] = [load_results, load_measured]
    try:
        run_results, measured = concurrently(lambda part: part(run), load)
    except UnfinishedError as error:
        partial = load_partial(run)
        if as_json:
            print(json.dumps(partial.to_json(), indent=2, allow_nan=False))
        else:
            tables.show_partial(partial)
        console.errors.print(console.plain(f"netsim: {error}"), soft_wrap=True)
        raise typer.Exit(1) from None
    comparison = published.compare(run_results, reference) if reference else None
    shown = ordered(run_results, order)
    if as_json:
        content = to_json(shown) | {"measures": measured_json(measured)}
        content |= {"compare": published.comparison_json(comparison)} if comparison else {}
        print(json.dumps(content, indent=2, allow_nan=False))
        return
    tables.show_results(shown, matrices_by)
    if measured:
        tables.show_measured(measured)
        tables.show_influence(run_results, measured)
    if comparison:
        tables.show_comparison(comparison)


def verify(
    store: Store,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove corrupted shards, so that the next run recomputes them.")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=0, help="Number of images per network whose loss is recomputed.", metavar="N")
    ] = 8,
    credentials: Credentials = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a run against its checksums, and recompute a sample of losses.

    Reads everything that the run has stored. Exits with code 1 if anything is missing or corrupted.

    For example:

    * `netsim verify runs/demo`
    * `netsim verify runs/demo --repair`: then run the sweep again, to recompute what was corrupted
    """
    from flows.cli import console
    from netsim import verify as check
    from netsim.store.run import Run

    use_credentials(credentials, debug)
    console.set_up(quiet=quiet, as_json=as_json)
    opened = Run.open(store)
    total = len(check.committed(opened))
    with console.progress_bar("Verifying shards", total) as advance:
        faults = check.verify(opened, sample=sample, repair=repair, on_shard=advance)
    if as_json:
        content = [asdict(fault) for fault in faults]
        print(json.dumps({"shards": total, "repaired": repair, "faults": content}, indent=2))
        raise typer.Exit(1 if faults else 0)
    for fault in faults:
        console.errors.print(console.plain(str(fault)), soft_wrap=True)
    if not faults:
        console.console.print(f"{total:,} shards verified, no faults", soft_wrap=True)
        return
    if repair:
        repaired = [fault for fault in faults if fault.repairable]
        shards = {(fault.stage, fault.name, fault.shard) for fault in repaired if fault.shard is not None}
        documents = len({fault.name for fault in repaired if fault.shard is None})
        if documents:
            console.errors.print(f"{documents:,} documents rewritten", soft_wrap=True)
        if shards:
            resume = f"run `netsim run --store {quote(opened.url)}` to recompute them"
            console.errors.print(f"{len(shards):,} of {total:,} shards removed; {resume}", soft_wrap=True)
    raise typer.Exit(1)


def report(
    store: Store,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to write to.", metavar="FOLDER")] = "report",
    sweep: Sweep = None,
    networks: Networks = None,
    pairs: Pairs = None,
    order: Order = "given",
    estimator: EstimatorOption = "unbiased",
    limits: Annotated[
        tuple[float, float], typer.Option("--range", help="Ends of the colour scale.", metavar="LOW HIGH")
    ] = (0.0, 1.0),
    width: Annotated[
        str | None,
        typer.Option(
            help="Width of every figure in a file, such as `8.5cm`, `3.35in` or `241pt`; fonts keep their size.",
            metavar="LENGTH",
            show_default="as wide as its content",
        ),
    ] = None,
    title: Annotated[
        str, typer.Option(help="Title of the page.", metavar="TEXT", show_default="the number of networks")
    ] = "",
    credentials: Credentials = None,
    debug: Debug = False,
) -> None:
    """Write the report of a finished run: one HTML page that holds its tables, figures, a caption, and CSV tables.

    Every figure is written as SVG, PNG and PDF. Measures and layers that were compared are part of the report.

    For example:

    * `netsim report runs/demo -o report`
    * `netsim report runs/demo --networks resnet18,vgg,densenet --order clustered --range 0 0.6`
    * `netsim report runs/demo --width 8.5cm`: for a column of a paper
    """
    from flows.cli import console
    from netsim.report.options import ReportOptions
    from netsim.report.page import stored_layers, write_report
    from netsim.results.gallery import gallery
    from netsim.results.measured import load_measured
    from netsim.results.results import load_results
    from netsim.storage.concurrency import concurrently
    from netsim.store.run import Run
    from netsim.store.views import view

    options = ReportOptions(order=order, title=title, estimator=estimator, limits=limits, width=width)
    use_credentials(credentials, debug)
    opened = view(Run.open(store, sweep), names(networks), pairs)
    load: list[Callable[[Run], Any]] = [load_results, gallery, load_measured, stored_layers]
    run_results, images, measured, layers = concurrently(lambda part: part(opened), load)
    written = write_report(
        run_results,
        images,
        output,
        settings_yaml=opened.settings.to_yaml(),
        measured=measured,
        layers=layers,
        options=options,
        note=lambda sentence: console.errors.print(console.plain(f"netsim: {sentence}"), soft_wrap=True),
    )
    console.console.print(f"report: {written['report.html']}", soft_wrap=True)


def study(
    store: Store,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to write to.", metavar="FOLDER")] = "study",
    floor: Annotated[
        float,
        typer.Option(min=0, max=1, help="Test accuracy below which a standard network is left out.", metavar="SHARE"),
    ] = 0.85,
    robust_floor: Annotated[
        float,
        typer.Option(min=0, max=1, help="Test accuracy below which a robust network is left out.", metavar="SHARE"),
    ] = 0.0,
    sweep: Sweep = None,
    networks: Networks = None,
    pairs: Pairs = None,
    credentials: Credentials = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show similarity as a function of robustness, of a finished run with networks of two levels of eps or more.

    Prints means by eps, slopes, and robust against standard networks, and writes a page with plots (SVG, PNG,
    PDF) and tables (CSV). With `--json`, prints JSON and writes nothing. Agreement of predictions is part of it after
    `netsim measure STORE agreement jensen_shannon retrained_agreement`.

    For example:

    * `netsim study runs/fashion-robust`
    * `netsim study runs/imagenet --floor 0.6 -o imagenet`
    """
    from flows.cli import console, tables
    from netsim.report.study import write_study
    from netsim.results.measured import load_measured
    from netsim.results.results import load_results
    from netsim.results.study import make_study
    from netsim.storage.concurrency import concurrently
    from netsim.store.run import Run
    from netsim.store.views import view

    use_credentials(credentials, debug)
    run = view(Run.open(store, sweep), names(networks), pairs)
    load: list[Callable[[Run], Any]] = [load_results, load_measured]
    run_results, measured = concurrently(lambda part: part(run), load)
    shown = make_study(run_results, measured, floor=floor, robust_floor=robust_floor)
    if as_json:
        print(json.dumps(shown.to_json(), indent=2, allow_nan=False))
        return
    tables.show_study(shown)
    written = write_study(shown, output)
    console.console.print(f"study: {written['study.html']}", soft_wrap=True)
