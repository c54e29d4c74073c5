"""`netsim measure` and `netsim layers`: further analyses of what a run has stored."""

import json
from typing import Annotated

import typer

from flows.cli.options import (
    ClusterFile,
    Credentials,
    Debug,
    Json,
    Networks,
    Pairs,
    Quiet,
    Scheduler,
    Store,
    Sweep,
    Tls,
    Workers,
)
from flows.cli.options import names as split_names
from flows.cli.session import exit_on_interrupt, flow_session, report_nothing_to_do, use_credentials
from netsim.errors import SettingsError


def measure(
    store: Annotated[
        str | None,
        typer.Argument(
            help="Path or URL of the run, also as `--store STORE`; omit to list the measures.",
            metavar="STORE",
            show_default=False,
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MEASURE", help="Measures by name, or your own as `module:function`.", show_default=False
        ),
    ] = None,
    sweep: Sweep = None,
    networks: Networks = None,
    pairs: Pairs = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compute other similarity measures of a finished run, or list them.

    Fills every cell of both matrices, with errors and null values, from what the run has stored. Run it again to
    resume.

    For example:

    * `netsim measure`: list the measures
    * `netsim measure runs/demo procrustes stir`: compute two of them
    """
    from flows.cli import console, tables

    if store is None or not names:
        tables.show_measures(as_json=as_json)
        return
    console.set_up(quiet=quiet, as_json=as_json)
    from flows.clusters.settings import resolve_cluster
    from netsim.results.measured import load_measured, measure_stage, measured_json
    from tasks.prepare import open_view, prepare_measures

    chosen_cluster = resolve_cluster(
        None, workers=workers, scheduler=scheduler, tls=tls, file=cluster, credentials=credentials
    )
    use_credentials(chosen_cluster.credentials, debug)
    chosen = split_names(networks)
    opened = prepare_measures(open_view(store, sweep, chosen, pairs), names)
    stage = measure_stage(names)
    if stage.missing(opened):
        with exit_on_interrupt(), flow_session(opened, (stage,), chosen_cluster, debug):
            from flows.measure import measure as flow

            flow(opened.url, names, chosen_cluster, sweep, chosen, pairs)
    else:
        report_nothing_to_do(opened, debug)
    shown = {name: measured for name, measured in load_measured(opened).items() if name in names}
    if as_json:
        print(json.dumps(measured_json(shown), indent=2, allow_nan=False))
        return
    tables.show_measured(shown)


def layers(
    store: Store,
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Two networks of the run, or one twice to compare its own layers.",
            metavar="NETWORK",
            show_default=False,
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="PATTERN", help="Layers by name, as in `layer?` or `features.*`; repeatable."),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            help="`pooled` (averaged over positions) or `flattened` (every position).",
            metavar="pooled|flattened",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder to write the heatmap and the table to.", metavar="FOLDER")
    ] = "layers",
    sweep: Sweep = None,
    pairs: Pairs = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    cluster: ClusterFile = None,
    credentials: Credentials = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare the layers of two networks, on natural images and on those inverted through either.

    Run it again to resume. With `--json`, prints JSON and writes no files.

    For example:

    * `netsim layers runs/demo resnet18 vgg --layer "layer?" --layer "features.*" --activations pooled`
    """
    from flows.cli import console
    from flows.clusters.settings import resolve_cluster
    from netsim.report.page import write_layers
    from netsim.results.layers import find_spec, layer_stage, layers_json, load_layers
    from tasks.prepare import open_view, prepare_layers

    if not layer or activations is None:
        raise SettingsError(
            '--layer and --activations are required, as in --layer "layer?" --activations pooled (or flattened)'
        )
    chosen_cluster = resolve_cluster(
        None, workers=workers, scheduler=scheduler, tls=tls, file=cluster, credentials=credentials
    )
    use_credentials(chosen_cluster.credentials, debug)
    console.set_up(quiet=quiet, as_json=as_json)
    opened = open_view(store, sweep, pairs=pairs)
    key = prepare_layers(opened, networks, layer, activations)
    spec = find_spec(opened, key)
    for name, refused in zip(spec.networks, spec.refused, strict=True):
        for left_out, reason in refused.items():
            message = f"left out: the output of layer {left_out} of {name} {reason}"
            console.errors.print(console.plain(message), soft_wrap=True)
    stage = layer_stage(spec)
    if stage.missing(opened):
        with exit_on_interrupt(), flow_session(opened, (stage,), chosen_cluster, debug):
            from flows.layers import layers as flow

            flow(opened.url, networks, layer, activations, chosen_cluster, sweep, pairs)  # type: ignore[call-overload]
    else:
        report_nothing_to_do(opened, debug)
    if as_json:
        print(json.dumps(layers_json(spec, load_layers(opened, spec)), indent=2, allow_nan=False))
        return
    written = write_layers(opened, spec, output)
    console.console.print("\n".join(f"wrote {path}" for path in written.values()), soft_wrap=True)
