"""Results in a terminal: both matrices, the networks, the headline and its warnings; other measures; estimates."""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from flows.cli.console import GAP, LONGEST, console, plain, say, show, table_of
from netsim.results.findings import (
    MEASURED_TABLE,
    NETWORK_TABLE,
    WARNING,
    digits_for,
    influence_warnings,
    measured_table,
    network_table,
    number,
    probability,
    probability_of,
    summary,
    with_error,
)
from netsim.results.listing import age
from netsim.results.matrices import SETS
from netsim.results.measured import Measured
from netsim.results.partial import PartialResults
from netsim.results.published import Comparison
from netsim.results.results import Results
from netsim.results.study import (
    Study,
    architecture_table,
    asymmetry_table,
    cross_table,
    level_table,
    study_asymmetry,
    study_headline,
    study_network_table,
    study_warnings,
)
from netsim.similarity.hsic import Estimator
from netsim.similarity.measures import measures
from netsim.similarity.uncertainty import Estimate, few_shards

if TYPE_CHECKING:
    from netsim.planning.count import StageCount
    from netsim.planning.estimate import CostEstimate, Range
    from netsim.results.compared import ComparedSweeps
    from netsim.results.listing import ListedStore
    from netsim.score import Score


def show_results(results: Results, estimator: Estimator = "unbiased") -> None:
    """Print both matrices by an estimator, the networks, the means with intervals, and every warning."""
    show_matrix("Natural CKA", results, "natural", estimator)
    show_matrix("Inverted CKA, row = inverted through, column = observer", results, "inverted", estimator)
    _show_networks(results)
    show_summary(summary(results))


def show_partial(results: PartialResults) -> None:
    """Print what is missing of a run that is not finished, and the rows of both matrices that are complete."""
    unfinished = [stage for stage in results.stages if not stage.finished]
    missing = ", ".join(
        f"{stage.total - stage.done:,} of {stage.total:,} shards of {stage.name}" for stage in unfinished
    )
    _warn(f"Not finished, so without means and tests; missing are {missing}.")
    for name, matrix in results.matrices.items():
        rows = [network for network, complete in zip(results.networks, matrix.complete, strict=True) if complete]
        if not rows:
            say(f"{name.capitalize()} CKA: no row is complete yet.")
            continue
        largest = np.nanmax(matrix.se[matrix.complete])
        heading = (
            f"{name.capitalize()} CKA, unbiased, {len(rows):,} of {len(results.networks):,} rows; n = {results.n:,} "
            f"images; largest standard error of a cell: {largest:.3f}"
        )
        cells = [[number(value, 2) for value in row] for row in matrix.cka[matrix.complete]]
        _show_cells(heading, rows, results.everyone, cells)


def show_summary(text: str) -> None:
    """Print the sentences of a run, its warnings in red; `text` is `netsim.results.findings.summary`."""
    for line in text.splitlines():
        say(line, "bold red" if line.startswith(WARNING) else None)


def show_study(study: Study) -> None:
    """Print similarity by eps, slopes, robust against standard networks, and every warning."""
    _show_rows("Mean over pairs of architectures of the same eps, ± images ± networks", level_table(study))
    for name in SETS:
        what = f"{name.capitalize()} CKA of architectures with others of the same eps, ± images ± networks"
        _show_rows(what, architecture_table(study, ("cka", name)))
    _show_rows("Inverted CKA by eps of both networks, ± images ± networks", cross_table(study))
    _show_rows(f"Robust rows and columns of eps {study.eps[0]:g}, minus mirrored cells", asymmetry_table(study))
    _show_rows("Networks", study_network_table(study))
    for sentence in (study_headline(study), study_asymmetry(study)):
        say(f"{sentence}.")
    for warning in study_warnings(study):
        _warn(warning)


def _show_rows(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table of rows, whose first column has no title."""
    _, *columns = rows[0]
    table = table_of("", *columns)
    for row in rows:
        table.add_row(*map(plain, row.values()))
    show(title, table)


def show_measures(*, as_json: bool = False) -> None:
    """Print the measures shipped with netsim."""
    if as_json:
        listed = {name: {"title": each.title, "reference": each.reference} for name, each in measures().items()}
        print(json.dumps(listed, indent=2))
        return
    table = table_of("measure")
    table.add_column("title")
    table.add_column("reference")
    for name, measure in measures().items():
        table.add_row(name, measure.title, measure.reference)
    show("Measures for `netsim measure STORE MEASURE...`; add your own as module:function", table)


def show_measured(measured: dict[str, Measured]) -> None:
    """Print each measure's means over the off-diagonal cells, with errors and their values for unrelated images."""
    _show_rows(f"Other measures: {MEASURED_TABLE}", measured_table(measured))


def show_influence(results: Results, measured: dict[str, Measured]) -> None:
    """Print a warning for each matrix with cells that a single image carries."""
    for warning in influence_warnings(results, measured):
        _warn(warning)


def show_comparison(comparison: Comparison) -> None:
    """Print a run against published matrices: means and correlations, then the difference of every cell."""
    published = comparison.published
    say(f"Compared with {published.name}: {published.source}. {published.provenance}")
    both = {"natural": comparison.natural, "inverted": comparison.inverted}
    table = table_of("", "this run", "published", "difference", "Pearson", "Spearman")
    for name, matrices in both.items():
        difference = matrices.mean - matrices.published_mean
        values = (matrices.mean, matrices.published_mean, difference, matrices.pearson, matrices.spearman)
        table.add_row(name, *(number(value) for value in values))
    show("Biased CKA: mean over the off-diagonal cells, and correlation of cells", table)
    for name, matrices in both.items():
        cells = [[number(value, 2) for value in row] for row in matrices.difference]
        heading = f"{name.capitalize()} CKA, this run minus published, row = inverted through"
        _show_cells(heading, comparison.networks, comparison.networks, cells)


def show_count(counts: Sequence["StageCount"]) -> None:
    """Print the missing work by stage."""
    table = table_of("stage", "kept", "to compute", "tasks")
    table.add_column("why")
    for stage in (stage for stage in counts if stage.kept or stage.shards):
        numbers = (f"{stage.kept:,}", f"{stage.shards:,}", f"{stage.tasks:,}")
        table.add_row(stage.stage, *numbers, ", ".join(stage.reasons))
    show("Work of each stage, in shards", table)
    say("Whether images and networks fit together is not checked; `netsim plan` without --quick does.")


def show_estimate(estimate: "CostEstimate", price: float | None) -> None:
    """Print the missing work by stage, the cost of each network, the total time, and the weights to download."""
    table = table_of("stage", "kept", "to compute", "tasks", "FLOP", "stored", "worker time")
    table.add_column("why")
    for stage in (stage for stage in estimate.stages if stage.kept or stage.shards):
        counted = f"{stage.flops:.2e}" if stage.flops else ""
        hours = _time(stage.seconds) if stage.seconds.mean else ""
        numbers = (f"{stage.kept:,}", f"{stage.shards:,}", f"{stage.tasks:,}")
        stored = _bytes(stage.stored) if stage.shards else ""
        table.add_row(stage.stage, *numbers, counted, stored, hours, ", ".join(stage.reasons))
    show("Work of each stage, in shards", table)
    measured = any(fmean(network.iteration) for network in estimate.networks)  # 0 if planned for another device
    speed = ["images × steps / s"] if measured else []
    table = table_of("", "parameters", "GFLOP per image", "precision", "batch", "tensors", "worker memory", *speed)
    for network in estimate.networks:
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
    show("Inversion of each network", table)
    free = "" if estimate.free is None else f" of {_bytes(estimate.free)} free"
    hours = _interval(estimate.device_seconds * (1 / 3600))
    cost = (
        "" if price is None else f", cost at {price:g} per hour: {_interval(estimate.device_seconds * (price / 3600))}"
    )
    say(f"Speed: {estimate.on}.")
    say(
        f"Wall time with {estimate.workers:,} workers: {_time(estimate.wall)}.\n"
        f"Device-hours: {hours}{cost}.\n"
        f"Memory of a worker with all networks loaded: {_bytes(estimate.worker_bytes)}.\n"
        f"Storage: {_bytes(estimate.stored)}{free}."
    )
    if estimate.at_most:
        say("These are upper bounds: with stop_loss, images finish earlier.")
    if estimate.first_look is not None:
        say(
            f"These are upper bounds: pairs.count is the most that are used, and with pairs.until the sweep stops when "
            f"its results are known, after {estimate.first_look:,} pairs at the earliest."
        )
    for warning in estimate.warnings:
        _warn(warning)
    if estimate.downloaded:
        names = ", ".join(estimate.downloaded)
        say(f"Every worker downloads published weights unless they are cached: {names}.")


def _time(seconds: "Range") -> str:
    unit, length = next(((u, s) for u, s in (("h", 3600), ("min", 60)) if seconds.mean >= 2 * s), ("s", 1))
    return f"{_interval(seconds * (1 / length))} {unit}"


def _interval(values: "Range") -> str:
    mean, low, high = (f"{value:.3g}" for value in (values.mean, values.low, values.high))
    return mean if low == high else f"{mean} ({low} to {high})"


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def show_matrix(title: str, results: Results, set_name: str, estimator: Estimator = "unbiased") -> None:
    """Print one matrix of a run, with the largest error of its cells in the title."""
    largest = np.nanmax(results.cells(set_name, estimator, kind="se"))
    cells = [[number(value, 2) for value in row] for row in results.cells(set_name, estimator)]
    heading = f"{title}, {estimator}; largest standard error of a cell: {largest:.3f}"
    _show_cells(heading, results.networks, results.everyone, cells)


def _show_cells(title: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print a matrix; it is folded, and columns are numbered like rows where their names do not fit."""
    widths = [GAP + max(len(name), *(len(row[index]) for row in cells)) for index, name in enumerate(columns)]
    if min(LONGEST, max(map(len, rows))) + sum(widths) > console.width:
        only = [f"{position} = {name}" for position, name in enumerate(columns, 1) if name not in rows]
        title += f"; columns by number{', ' * bool(only)}{', '.join(only)}"
        rows = [f"{columns.index(name) + 1:>{len(str(len(columns)))}} {name}" for name in rows]
        columns = [str(position) for position in range(1, len(columns) + 1)]
    table = table_of("", *columns)
    for name, row in zip(rows, cells, strict=True):
        table.add_row(name, *row)
    show(title, table)


def _show_networks(results: Results) -> None:
    rows = network_table(results)
    table = table_of("", *list(rows[0])[1:])
    for row in rows:
        style = "green" if results.converged[row["network"]] else "bold red"
        table.add_row(*(Text(cell, style=style if column == "converged" else "") for column, cell in row.items()))
    show(NETWORK_TABLE, table)


def show_score(score: "Score") -> None:
    """Print the column of a network that only looks, its means and its warnings."""
    columns = ("natural", "95 % interval", "seed-only", "inverted", "95 % interval", "seed-only")
    table = table_of("inverted through", *columns)
    for name in score.natural:
        sides = ((score.natural, score.natural_seed), (score.inverted, score.inverted_seed))
        cells = (
            text
            for values, controls in sides
            for text in (with_error(values[name]), _ends(values[name]), with_error(controls[name]))
        )
        table.add_row(name, *cells)
    show(f"Unbiased CKA with {score.name}, which only looks; n = {score.n:,} images in {score.shards:,} shards", table)
    means = {kind.replace("_seed", ", seed-only"): value for kind, value in score.means.items()}
    listed = "; ".join(f"{kind} {with_error(value)} ({_ends(value)})" for kind, value in means.items())
    say(f"Means: {listed}.")
    if score.twins:
        warning = f"{score.name} has the weights of {', '.join(score.twins)}, whose cells are left out of means."
        _warn(warning)
    _warn(few_shards(score.shards))


def show_stores(place: str, stores: "list[ListedStore]") -> None:
    """Print the sweeps of every store, one line each."""
    table = table_of("run")
    for title in ("sweep", "state", "size", "age", "pairs", "networks"):
        table.add_column(title, justify="right" if title in ("size", "age", "pairs") else "left", overflow="fold")
    for store in stores:
        if store.fault or not store.sweeps:
            table.add_row(plain(store.url), "", plain(store.fault or "no sweep"), _bytes(store.bytes))
        for position, sweep in enumerate(reversed(store.sweeps)):
            observers = f" + {', '.join(sweep.observers)}" if sweep.observers else ""
            networks = f"{len(sweep.networks)}: {', '.join(sweep.networks)}{observers}"
            first = (plain(store.url), _bytes(store.bytes)) if not position else ("", "")
            name = f"{sweep.name} {sweep.id}"
            table.add_row(first[0], name, sweep.state, first[1], age(sweep.asked), f"{sweep.pairs:,}", networks)
    show(f"{len(stores):,} runs below {place}", table)


def show_compared(compared: "ComparedSweeps", first: str, second: str) -> None:
    """Print the differences of two sweeps: of means, of rows, and of every cell."""
    say(f"A: {first}\nB: {second}")
    same = "both are of the same targets, with other seeds" if compared.other_seeds else "both are of the same pairs"
    paired = f"unpaired, because {compared.unpaired}" if compared.unpaired else f"paired: {same}"
    images = " and ".join(f"{n:,}" for n in dict.fromkeys(compared.n))
    say(f"Unbiased CKA on {images} pairs; {paired}.")
    if compared.settings:
        differing = ", ".join(f"{name} ({one} and {other})" for name, (one, other) in compared.settings.items())
        say(f"Settings differ: {differing}.")
    if compared.other_weights:
        say(f"Weights differ: {', '.join(compared.other_weights)}.")
    table = table_of("mean", "A", "B", "B − A", "95 % interval", "p", "p (Holm)")
    for (kind, name), value in compared.tests.items():
        difference = value.difference
        digits = digits_for(difference.se)
        table.add_row(
            f"{kind}, row {name}" if name else kind,
            with_error(value.first),
            with_error(value.second),
            with_error(difference, digits),
            _ends(difference),
            probability(difference),
            probability_of(compared.adjusted_p_values[kind, name]),
        )
    show("Means, and their differences", table)
    _warn(few_shards(compared.means["natural"].difference.df + 1))
    if compared.seeds:
        _show_seeds(compared)
    _show_agreement(compared)
    for kind, cells in compared.cells.items():
        values = [
            [f"{number(v)} ± {number(e)}" for v, e in zip(row, errors, strict=True)]
            for row, errors in zip(cells, compared.errors[kind], strict=True)
        ]
        heading = f"{kind.capitalize()} CKA, B − A, row = inverted through"
        _show_cells(heading, compared.networks, compared.networks, values)


def _show_seeds(compared: "ComparedSweeps") -> None:
    """Print what targets and what seeds contribute to the errors of inverted means."""
    table = table_of("mean of", "ICC", "95 % interval", "targets", "seeds")
    for name, parts in compared.seeds.items():
        low, high = parts.interval
        ends = f"{number(low, 2)} to {number(high, 2)}"
        digits = digits_for(parts.targets, parts.seeds) + 1  # they are what is told, not how far to trust it
        errors = (f"± {number(each, digits)}" for each in (parts.targets, parts.seeds))
        table.add_row(name or "all rows", number(parts.icc, 2), ends, *errors)
    show("Errors of inverted rows, divided into targets and seeds; ICC: the share of targets in the variance", table)
    left = number(compared.seeds[""].after_second_draw, 2)
    say(f"A second seed for each target leaves {left} of the variance of the mean; as many more targets leave 0.50.")


def _show_agreement(compared: "ComparedSweeps") -> None:
    """Print how well both matrices agree, one line each."""
    table = table_of("matrix", "correlation", "95 % interval", "p", "reliability of A", "reliability of B")
    for kind, agreement in compared.agreement.items():
        low, high = agreement.interval
        ends = f"{number(low)} to {number(high)}"
        reliabilities = (number(value) for value in compared.reliability[kind])
        table.add_row(kind, number(agreement.r), ends, probability_of(agreement.p_value), *reliabilities)
    show("Correlation of A and B over cells; p by permuting networks, interval by leaving each out", table)


def _warn(warning: str) -> None:
    """Print a warning, unless it is empty."""
    if warning:
        say(f"WARNING  {warning}", "bold red")


def _ends(value: Estimate) -> str:
    low, high = value.interval
    digits = digits_for(value.se)
    return f"{number(low, digits)} to {number(high, digits)}"
