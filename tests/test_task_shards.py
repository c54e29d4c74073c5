"""How missing shards become task runs."""

import time
from uuid import uuid4

import pytest
from distributed import Client
from prefect_dask.task_runners import PrefectDaskFuture

from netsim.errors import StoreError, UnreachableError
from tasks.shards import LOST, Block, _give_up_waiting, _worth_retrying, blocks


def test_a_block_holds_shards_of_one_name_in_order():
    missing = [("vgg", 0), ("vgg", 1), ("vgg", 4), ("wrn2", 2), ("wrn2", 3)]
    assert list(blocks(missing, 2)) == [Block("vgg", [0, 1]), Block("vgg", [4]), Block("wrn2", [2, 3])]
    assert list(blocks(missing, 100)) == [Block("vgg", [0, 1, 4]), Block("wrn2", [2, 3])]
    assert list(blocks([], 2)) == []


@pytest.mark.parametrize(
    ("error", "again"), [(StoreError("full"), False), (ConnectionError("gone"), True), (UnreachableError("gone"), True)]
)
def test_only_what_may_pass_is_tried_again(error, again):
    """The same settings meet the same full disk; a network comes back."""
    from prefect.states import exception_to_failed_state
    from prefect.utilities.asyncutils import run_coro_as_sync

    state = run_coro_as_sync(exception_to_failed_state(error))
    assert _worth_retrying(None, None, state) is again


def test_blocks_that_no_worker_has_begun_are_given_up():
    """After a fault that the next block would meet too. What a worker has begun is seen through."""

    def work(number: int) -> int:
        time.sleep(1)
        return number

    with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as client:
        futures = [client.submit(work, number) for number in range(20)]
        while not client.processing():
            time.sleep(0.01)
        time.sleep(0.2)
        window = [(Block("a", [i]), PrefectDaskFuture(uuid4(), future)) for i, future in enumerate(futures)]
        _give_up_waiting(window)
        assert futures[0].result() == 0
        for future in futures[5:]:
            with pytest.raises(LOST):
                future.result()
        _give_up_waiting([])
