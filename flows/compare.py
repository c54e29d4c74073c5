"""From trained networks to both matrices: draw pairs, invert, embed, aggregate, control, report."""

from prefect import flow

from flows.clusters.settings import EMBED_FACTOR
from tasks.dispatch import finish
from tasks.looks import each_look
from tasks.prefect_runs import mark_cancelled, named_after_store
from tasks.prepare import open_run
from tasks.verbs import aggregate, control, draw, embed, invert, report


@flow(name="compare", flow_run_name=named_after_store("compare"), on_crashed=[mark_cancelled])
def compare(store: str, sweep: str, shards_per_task: int) -> None:
    """Compare the networks of the run at `store`, naturally and after inversion; complete shards are skipped.

    A sweep that stops when its results are known (`pairs.until`) does so look by look.
    """
    for run in each_look(open_run(store, sweep)):
        finish(run, draw, shards_per_task=shards_per_task)
        finish(run, invert, shards_per_task=shards_per_task)
        finish(run, embed, shards_per_task=EMBED_FACTOR * shards_per_task)
        finish(run, aggregate)
    finish(run, control)
    finish(run, report)
