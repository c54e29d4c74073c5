"""The work of a sweep, counted without its networks."""

import pytest

from netsim.errors import StoreError
from netsim.planning.count import count_work
from netsim.store.stages import STAGES
from support.sweeps import TINY, tiny

PER_TASK = {"draw": 4, "invert": 3, "embed": 8}


def test_a_finished_run_has_nothing_to_do(finished):
    counts = count_work(tiny(), finished.url, shards_per_task=PER_TASK)
    assert [count.stage for count in counts] == [stage.name for stage in STAGES]
    assert sum(count.shards + count.tasks for count in counts) == 0 and sum(count.kept for count in counts) > 0


def test_what_a_new_network_needs_is_counted(finished):
    networks = [*TINY["networks"], "extra=small:mobilenet@none"]
    counts = {c.stage: c for c in count_work(tiny(networks=networks), finished.url, shards_per_task=PER_TASK)}
    invert = counts["invert"]
    assert (invert.kept, invert.shards, invert.tasks, invert.reasons) == (12, 4, 2, ("new network extra",))
    assert counts["draw"].shards == 0


def test_a_store_of_another_protocol_is_refused(finished):
    with pytest.raises(StoreError, match="iterations"):
        count_work(tiny(inversion={"iterations": 99}), finished.url, shards_per_task={})
