"""How missing shards become task runs."""

import pytest

from netsim.errors import StoreError, UnreachableError
from tasks.shards import Block, _worth_retrying, blocks


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
