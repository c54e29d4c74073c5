"""netsim status, results, verify, report: read a store."""

import json
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from flows.cli.options import Credentials, Debug, Json, Store
from flows.cli.session import use_credentials


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
    from flows.cli import console
    from netsim.store import status as progress
    from netsim.store import throughput as speed
    from netsim.store.run import Run

    use_credentials(credentials, debug)
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
    from flows.cli import tables
    from netsim.results import published
    from netsim.results.as_json import to_json
    from netsim.results.measured import load_measured, measured_json
    from netsim.results.results import load_results
    from netsim.store.run import Run

    reference = published.published_matrices(compare) if compare else None
    use_credentials(credentials, debug)
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


def verify(
    store: Store,
    repair: Annotated[bool, typer.Option("--repair", help="have the next run compute shards at fault again")] = False,
    sample: Annotated[int, typer.Option(min=0, help="images of each network whose loss is measured again")] = 8,
    credentials: Credentials = None,
    debug: Debug = False,
) -> None:
    """Read everything back against its checksums and measure some losses again; exit code 1 if anything is off."""
    from flows.cli import console
    from netsim import verify as check
    from netsim.store.run import Run

    use_credentials(credentials, debug)
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


def report(
    store: Store,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write into")] = Path("report"),
    credentials: Credentials = None,
    debug: Debug = False,
) -> None:
    """Write the report of a finished run: one self-contained HTML page, figures as PNG and SVG, tables as CSV."""
    from flows.cli import console
    from netsim.report.page import write_report
    from netsim.results.gallery import gallery
    from netsim.results.results import load_results
    from netsim.storage.s3 import translate_errors
    from netsim.store.run import Run

    use_credentials(credentials, debug)
    opened = Run.open(store)
    with translate_errors(str(output)):
        write_report(load_results(opened), gallery(opened), output, settings_yaml=opened.settings.to_yaml())
    console.console.print(f"report: {output / 'report.html'}", soft_wrap=True)
