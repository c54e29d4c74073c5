"""The process that workers of this machine are forked from, once it has imported what takes each of them 5 seconds."""

import os
from multiprocessing import forkserver, get_context

from flows.clusters.environment import ENVIRONMENT


def start_fork_server() -> None:
    """Start that process, unless it runs, and do not wait: it imports while this one goes on, and ends with it.

    It starts no thread, so that forking it is safe.
    """
    get_context("forkserver").set_forkserver_preload(["flows.clusters.preloaded"])
    kept = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)  # of the workers, which inherit it
    try:
        forkserver.ensure_running()
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
