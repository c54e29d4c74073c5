"""netsim measure, layers: more numbers from what a run has stored."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ClusterFile, Credentials, Debug, Scheduler, Store, Tls, Workers
from flows.cli.session import report_nothing_to_do, resumable, use_credentials, watched
from flows.clusters.settings import chosen_cluster
from netsim.errors import SettingsError


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
    from flows.cli import tables
    from netsim.results.measured import load_measured
    from netsim.stages.measure import measure_stage
    from netsim.store.run import Run
    from tasks.prepare import prepare_measures

    if store is None or not names:
        tables.show_measures()
        return
    where = chosen_cluster(None, workers=workers, scheduler=scheduler, tls=tls, file=cluster, credentials=credentials)
    use_credentials(where.credentials, debug)
    opened = Run.open(prepare_measures(store, names))
    stage = measure_stage(names)
    if stage.missing(opened):
        with resumable(), watched(opened, (stage,), debug):
            from flows.measure import measure as flow

            flow(opened.url, names, where)
    else:
        report_nothing_to_do(opened, debug)
    tables.show_measured({name: found for name, found in load_measured(opened).items() if name in names})


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
    from flows.cli import console
    from netsim.report.page import write_layers
    from netsim.results.layers import find_spec
    from netsim.stages.layers import layer_stage
    from netsim.storage.s3 import translate_errors
    from netsim.store.run import Run
    from tasks.prepare import prepare_layers

    if not layer or activations is None:
        raise SettingsError('say which layers and how, as in --layer "layer?" --activations pooled (or flattened)')
    where = chosen_cluster(None, workers=workers, scheduler=scheduler, tls=tls, file=cluster, credentials=credentials)
    use_credentials(where.credentials, debug)
    url, key = prepare_layers(store, networks, layer, activations)
    opened = Run.open(url)
    spec = find_spec(opened, key)
    stage = layer_stage(spec)
    if stage.missing(opened):
        with resumable(), watched(opened, (stage,), debug):
            from flows.layers import layers as flow

            flow(url, networks, layer, activations, where)  # type: ignore[call-overload]
    else:
        report_nothing_to_do(opened, debug)
    with translate_errors(str(output)):
        written = write_layers(opened, spec, output)
    console.console.print("\n".join(str(path) for path in written), soft_wrap=True)
