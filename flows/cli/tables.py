"""What the command line shows of results: both matrices, the networks, the finding, and every reason to doubt it."""

from statistics import fmean

import numpy as np
from rich.text import Text

from flows.cli.console import console, plain, show, table_of
from netsim.planning.estimate import Estimate, Range
from netsim.results.findings import (
    NETWORK_TABLE,
    biased_headline,
    headline,
    intervals,
    network_table,
    number,
    warnings,
    with_error,
)
from netsim.results.measured import Measured
from netsim.results.published import Comparison
from netsim.results.results import Matrix, Results
from netsim.similarity.measures import measures


def show_results(results: Results) -> None:
    """Both matrices, the means, the networks, and every reason to doubt them."""
    _show_matrix("Natural CKA", results.networks, results.natural)
    _show_matrix("Inverted CKA, row = inverted through, column = observer", results.networks, results.inverted)
    _show_networks(results)
    console.print(f"{headline(results)}.\n{biased_headline(results)}.\n{intervals(results)}.", soft_wrap=True)
    for doubt in warnings(results):
        console.print(f"WARNING  {doubt}", style="bold red", soft_wrap=True)


def show_measures() -> None:
    """The measures that come with netsim."""
    table = table_of("measure")
    table.add_column("what it is")
    table.add_column("source")
    for name, found in measures().items():
        table.add_row(name, found.title, found.reference)
    show("Measures for `netsim measure STORE MEASURE...`; your own as module:function", table)


def show_measured(measured: dict[str, Measured]) -> None:
    """Means over the cells off the diagonal, with errors; beside them what unrelated images would give."""
    table = table_of("", "natural", "null", "inverted", "null", "natural − inverted", "95 % interval")
    for found in measured.values():
        natural = [with_error(found.natural.mean), number(found.natural.null_mean)] if found.natural else ["", ""]
        difference = ["", ""]
        if found.difference:
            low, high = found.difference.interval
            difference = [with_error(found.difference), f"{number(low)} to {number(high)}"]
        inverted = [with_error(found.inverted.mean), number(found.inverted.null_mean)]
        table.add_row(plain(found.title), *natural, *inverted, *difference)
    says = "means off the diagonal ± one standard error; null = with one side's images permuted; – = undefined"
    show(f"Other measures: {says}", table)


def show_comparison(comparison: Comparison) -> None:
    """A run against published matrices: means and correlations, then every cell's difference."""
    published = comparison.published
    console.print(f"Held against {published.name}: {published.source}. There: {published.provenance}", soft_wrap=True)
    both = {"natural": comparison.natural, "inverted": comparison.inverted}
    table = table_of("", "mean here", "mean there", "difference", "Pearson", "Spearman")
    for name, found in both.items():
        difference = found.mean - found.published_mean
        values = (found.mean, found.published_mean, difference, found.pearson, found.spearman)
        table.add_row(name, *(number(value) for value in values))
    show("Biased CKA over the cells off the diagonal, and correlations of cells", table)
    for name, found in both.items():
        table = table_of("", *comparison.networks)
        for row, network in enumerate(comparison.networks):
            table.add_row(network, *(number(value, 2) for value in found.difference[row]))
        show(f"{name.capitalize()} CKA here minus there, row = inverted through", table)


def show_estimate(found: Estimate, price: float | None) -> None:
    """What is missing of a sweep, stage by stage; what its networks take; hours; and what is to be downloaded."""
    table = table_of("stage", "shards", "tasks", "FLOP", "stored", "time of a worker")
    for stage in found.stages:
        counted = f"{stage.flops:.2e}" if stage.flops else ""
        hours = _time(stage.seconds) if stage.seconds.mean else ""
        table.add_row(stage.stage, f"{stage.shards:,}", f"{stage.tasks:,}", counted, _bytes(stage.stored), hours)
    show("What is missing", table)
    measured = any(fmean(network.iteration) for network in found.networks)  # not for another device
    speed = ["images × steps / s"] if measured else []
    table = table_of("", "parameters", "GFLOP an image", "in", "at a time", "tensors", "a worker's memory", *speed)
    for network in found.networks:
        rate = fmean(network.iteration)
        table.add_row(
            network.name,
            f"{network.parameters:,}",
            f"{network.flops / 1e9:.3g}",
            network.precision,
            str(network.batch_size),
            _bytes(network.device_bytes),
            _bytes(network.host_bytes),
            *([f"{1 / rate:.3g}" if rate else ""] if measured else []),
        )
    show("Networks, inverted", table)
    hours = _interval(found.device_seconds * (1 / 3600))
    cost = "" if price is None else f", at {price:g} an hour {_interval(found.device_seconds * (price / 3600))}"
    console.print(plain(f"Seconds are those of: {found.on}."), soft_wrap=True)
    console.print(
        f"From the command to its end, {found.workers:,} workers: {_time(found.wall)}.\n"
        f"Hours of a device: {hours}{cost}.\n"
        f"A worker that has all the networks holds {_bytes(found.worker_bytes)}; "
        f"{_bytes(found.stored)} are stored{f', {_bytes(found.free)} are free' if found.free is not None else ''}.",
        soft_wrap=True,
    )
    if found.at_most:
        console.print("Images are finished at stop_loss, so that inversions take less than this.", soft_wrap=True)
    if found.downloaded:
        names = ", ".join(found.downloaded)
        console.print(plain(f"Every worker loads published weights, or downloads them: {names}."), soft_wrap=True)


def _time(seconds: Range) -> str:
    unit, length = next(((u, s) for u, s in (("h", 3600), ("min", 60)) if seconds.mean >= 2 * s), ("s", 1))
    return f"{_interval(seconds * (1 / length))} {unit}"


def _interval(found: Range) -> str:
    mean, low, high = (f"{value:.3g}" for value in (found.mean, found.low, found.high))
    return mean if low == high else f"{mean} ({low} to {high})"


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _show_matrix(title: str, networks: tuple[str, ...], matrix: Matrix) -> None:
    largest = np.nanmax(matrix.cka_unbiased_se)
    table = table_of("", *networks)
    for row, name in enumerate(networks):
        table.add_row(name, *(number(value, 2) for value in matrix.cka_unbiased[row]))
    show(f"{title}, unbiased; the largest standard error of a cell is {largest:.3f}", table)


def _show_networks(results: Results) -> None:
    rows = network_table(results)
    table = table_of("", *list(rows[0])[1:])
    for row in rows:
        style = "green" if results.converged[row["network"]] else "bold red"
        table.add_row(*(Text(cell, style=style if column == "converged" else "") for column, cell in row.items()))
    show(NETWORK_TABLE, table)
