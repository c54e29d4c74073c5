"""Looks of a sweep that stops when its results are known (`pairs.until`), in the flow process."""

import logging
from collections.abc import Iterator

from netsim.results.findings import verdict_line
from netsim.results.stopping import at_looks, verdict_at
from netsim.store.run import Run
from tasks.artifacts import show_looks
from tasks.logs import announce


def each_look(run: Run) -> Iterator[Run]:
    """Yield the store as a sweep sees it at each look that is not complete yet, until its rule is met.

    The caller completes a look before it takes the next one. The last one is the sweep as it ends; a sweep without a
    rule has this one only.
    """
    if run.settings.pairs.until is None:
        yield run
        return
    verdicts = []
    for look in at_looks(run):
        verdict = verdict_at(look)
        present = verdict is None or verdict.final
        if present:
            look.ask()
            yield look
            verdict = verdict_at(look)
        if verdict is None:  # shards are quarantined
            return
        verdicts.append(verdict)
        if present:
            announce(verdict_line(verdict), logging.INFO)
            show_looks(look, verdicts)
        if verdict.final:
            return
