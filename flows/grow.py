"""A sweep that follows a settings file: what the file names beyond what the store has is computed."""

from pathlib import PurePath

from prefect import flow

from flows.clusters.settings import Cluster, Local
from flows.parameters import File, Store
from flows.sweep import sweep
from netsim.settings import load_settings
from tasks.prefect_runs import mark_cancelled, named_after_store


@flow(name="grow", flow_run_name=named_after_store("grow"), on_crashed=[mark_cancelled], on_failure=[mark_cancelled])
def grow(file: File, store: Store, cluster: Cluster = Local()) -> str:  # noqa: B008 (frozen)
    """Run the sweep of a settings file as it is now; calling it again computes what was added to the file.

    `file` is a path, or the name of a sweep shipped with netsim. Returns the store's URL.
    """
    return sweep(load_settings(file), store, cluster, PurePath(file).stem)
