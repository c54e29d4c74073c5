"""The sweep: measure how similar networks are, on natural images and after inversion."""

from prefect import flow

from flows.clusters.runner import task_runner
from flows.clusters.settings import Cluster, Local
from flows.compare import compare
from flows.parameters import Label, Store, Sweep
from flows.server.credentials import use_block
from flows.train import train
from tasks.dispatch import require_none_quarantined
from tasks.prefect_runs import mark_cancelled, named_after_store, tracked_runs
from tasks.prepare import open_run, prepare


@flow(name="sweep", flow_run_name=named_after_store("sweep"), on_crashed=[mark_cancelled], on_failure=[mark_cancelled])
def sweep(settings: Sweep, store: Store, cluster: Cluster = Local(), label: Label = "") -> str:  # noqa: B008
    """Train networks without weights, invert every network, and compare all of them on all image sets.

    The store records what is complete: calling it again resumes, and settings with more networks or pairs compute only
    what is new. Returns the store's URL.
    """
    use_block(cluster.credentials)
    run = prepare(settings, store, label, download=cluster.kind == "local")
    with tracked_runs(run.url), task_runner(cluster) as runner:
        train.with_options(task_runner=runner)(run.url, run.sweep.id)
        compare.with_options(task_runner=runner)(run.url, run.sweep.id, cluster.shards_per_task)
        require_none_quarantined(open_run(run.url, run.sweep.id))
    return run.url
